"""How long `zmc --target cuda` takes for GPT-2 124M, with NVRTC's results out of the cache and without.

Times are printed beside what is promised on two quiet cores, and fail nothing; what fails is a cache that is not used or changes the
executable.
"""
import os
import subprocess
import time

from zmtest import *

UNCACHED_S, CACHED_S = 6, 1


def compile_once(extra, cache):
    """Seconds of the wall, and of the process and its threads."""
    before, start = os.times(), time.monotonic()
    run([ZMC, GPT2, "--target", "cuda:sm_90", *extra, "-o", path("exe")], env=dict(os.environ, ZMC_CACHE=cache))
    after = os.times()
    return time.monotonic() - start, after.children_user - before.children_user + after.children_system - before.children_system


def test_compile_time():
    probe = subprocess.run([ZMC, GPT2, "--target", "cuda:sm_90", "-D", "layers=1", "-o", path("x")], capture_output=True, text=True, check=False)
    if "with NVRTC, which is missing" in probe.stderr:
        print("skipped: test_compile_time: no NVRTC")
        return
    for name, extra in (("f32", []), ("bf16", ["--precision", "bf16"])):
        cache = path(f"cache-{name}")
        wall, cpu = compile_once(extra, cache)
        first, texts = read(path("exe")), sorted(os.listdir(cache))
        assert texts, "nothing was kept"
        again, cpu_again = compile_once(extra, cache)
        same(sorted(os.listdir(cache)), texts, "texts in the cache")
        same(read(path("exe")), first, "executables")
        assert cpu_again < cpu, f"{name}: {cpu_again:.2f} s of the CPU with the cache, {cpu:.2f} s without"
        print(f"  gpt2 124M {name}: {wall:.2f} s ({cpu:.2f} s of CPU; promised {UNCACHED_S} s on two cores), "
              f"cached {again:.2f} s ({cpu_again:.2f} s; promised {CACHED_S} s)")


main()
