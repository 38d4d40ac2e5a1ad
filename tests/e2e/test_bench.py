"""tools/bench checks itself on a tiny model: it runs, and its numbers are complete.  Nothing about their size.  Skipped where no
Python with torch is at hand ($ZMC_BENCH_PYTHON, the build's bench-env, this one)."""
import json
import os
import subprocess
import sys

import zmtest as z


def torch_python():
    for python in (os.environ.get("ZMC_BENCH_PYTHON"), os.path.join(z.BUILD, "bench-env", "bin", "python"), sys.executable):
        if python and os.path.exists(python) and subprocess.run([python, "-c", "import torch, numpy"], stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return None


def test_gpu():
    """On the simulator, where PyTorch cannot run: its reason is told, ours is timed."""
    simulator = os.path.join(z.BUILD, "gpusim")
    if not os.path.exists(os.path.join(simulator, "libcuda.so.1")):
        print("skipped: test_gpu: no simulator in this build")
        return
    out = z.path("gpu.json")
    env = {**os.environ, "LD_LIBRARY_PATH": simulator, "CUDA_VISIBLE_DEVICES": "0"}
    text, _ = z.run([sys.executable, os.path.join(z.ROOT, "tools", "bench"), "--gpu", "sm_80", "--case", "tiny", "--rounds", 1, "--steps", 1, "--no-compile",
                     "--build", z.BUILD, "--python", torch_python(), "--json", out], env=env)
    with open(out, encoding="utf-8") as f:
        r = json.load(f)["gpu"]
    zmc, torch = r["programs"]["zmc"], r["programs"]["torch eager"]
    assert len(zmc["times_s"]) == 1 and zmc["tokens_s"] > 0 and zmc["memory_bytes"] > 1 << 16, zmc
    assert torch["reason"] and "min_s" not in torch and r["speed_to"] == {}, torch
    assert "torch eager     not measured: " in text, text


def test_tiny():
    out = z.path("bench.json")
    text, _ = z.run([sys.executable, os.path.join(z.ROOT, "tools", "bench"), "--case", "tiny", "--rounds", 2, "--steps", 2, "--no-compile",
                     "--threads", 2, "--build", z.BUILD, "--python", torch_python(), "--json", out])
    with open(out, encoding="utf-8") as f:
        r = json.load(f)
    assert set(r["programs"]) == {"zmc", "torch eager"}
    for p in r["programs"].values():
        assert len(p["times_s"]) == 4 and 0 < p["min_s"] <= p["median_s"] and p["first_s"] > 0 and p["peak_bytes"] > 1 << 20, p
    assert set(r["ratios"]["step"]) == {"minima", "medians"} and r["ratios"]["peak"] > 0
    for threads in ("1", "2"):
        p = r["products"]["threads"][threads]
        assert sum(s["flops"] for s in p["shapes"]) == r["products"]["flops"], p
        assert all(s["zmc_s"] > 0 for s in p["shapes"]), p["shapes"]
        assert all(p["sum_s"][n]["min"] > 0 for n in ("zmc", "OpenBLAS"))
    assert "zmc / PyTorch: step" in text and "zmc's speed / OpenBLAS's" in text, text


if __name__ == "__main__":
    if torch_python() is None:
        print("no Python with torch: tools/bench makes one")
        sys.exit(77)
    z.main()
