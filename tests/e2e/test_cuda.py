"""Executables of --target cuda on the project's GPU simulator: the same losses as the CPU's, state in and out, refusals.

Skipped by name where there is no NVRTC or no simulator.
"""
import json
import random
import signal
import time

from gputest import *

MLP = {"in": 21, "hidden": 37, "classes": 7, "B": 5, "lr": 1e-2}
GPT = dict(SMALL, layers=1, heads=2, width=26, ctx=9, T=9, B=2, vocab=61, dropout=0.1)
SCALED = ("--accumulate", 2, "--loss-scale", "dynamic:init=1024,hysteresis=1")
TOLERANCE = 1e-5  # of 20 steps in f32, whose sums the targets order differently
LOW_TOLERANCE = 1e-2  # in 16 bits


def train_cuda(exe, steps, *args, data, **more):
    """As train(), on a GPU; the simulator must have nothing to report.  more: of the environment."""
    env, report = gpu_env(**more)
    m = path("cuda.jsonl")
    if os.path.exists(m):
        os.unlink(m)
    run([exe, "--data", data, "--steps", steps, "--metrics", m, *args], env=env)
    no_reports(report)
    return metrics(m)


def same_steps(cuda, cpu, tolerance=TOLERANCE):
    same(len(cuda), len(cpu), "numbers of steps")
    for x, y in zip(cuda, cpu):
        for key in ("step", "update", "skipped", "loss_scale", "loss_scale_next", "lr"):
            same(x[key], y[key], f"{key} of step {x['step']}")
        close(x["loss"], y["loss"], tolerance, f"losses of step {x['step']}")


def same_tensors(cuda, cpu):
    """Every element to TOLERANCE of the largest of its tensor."""
    a, b = safetensors(cuda), safetensors(cpu)
    same(sorted(a), sorted(b), "names of tensors")
    for name, (_, shape, raw) in a.items():
        same(shape, b[name][1], f"shapes of {name}")
        x, y = (struct.unpack(f"<{len(r) // 4}f", r) for r in (raw, b[name][2]))
        largest = max(map(abs, y), default=0)
        worst = max((abs(p - q) for p, q in zip(x, y)), default=0)
        assert worst <= TOLERANCE * largest, f"{name}: {worst} of {largest}"


def samples(n=40):
    rng = random.Random(1)
    x = [rng.gauss(0, 1) for _ in range(n * MLP["in"])]
    y = [rng.randrange(MLP["classes"]) for _ in range(n)]
    return write_safetensors("samples.safetensors", {"x": ("F32", [n, MLP["in"]], struct.pack(f"<{len(x)}f", *x)), "y": ("I32", [n], struct.pack(f"<{n}i", *y))})


def mlp(target=()):
    return compile_model(os.path.join(MODELS, "mlp.zm"), MLP, target)


def gpt(target=()):
    return compile_model(d=GPT, extra=(*SCALED, *target))


def test_mlp_has_the_losses_of_the_cpu():
    files = [[path(f"mlp-{t}-{what}.st") for what in ("grads", "weights")] for t in ("cuda", "cpu")]
    out = [("--dump-grads", grads, "--export", weights) for grads, weights in files]
    cuda = train_cuda(mlp(TARGET), 20, *out[0], data=samples())
    same_steps(cuda, train(mlp(), 20, *out[1], data=samples()))
    assert cuda[-1]["loss"] < cuda[0]["loss"]
    same_tensors(files[0][0], files[1][0])
    same_tensors(files[0][1], files[1][1])


def test_gpt2_has_the_losses_of_the_cpu():
    data = tokens(400, 61)
    args = ("--fault", "nonfinite@3", "--dtype", "u8", "--eval-data", data, "--eval-every", 20)
    cuda, cpu = train_cuda(gpt(TARGET), 20, *args, data=data), train(gpt(), 20, *args, data=data)
    same_steps(cuda, cpu)
    same([m["step"] for m in cuda if m["skipped"]], [3], "skipped steps")
    evals = [json_lines(path(name))[-1] for name in ("cuda.jsonl", "m.jsonl")]
    close(evals[0]["eval_loss"], evals[1]["eval_loss"], TOLERANCE, "losses of the evaluation")
    same(evals[0]["eval_tokens"], evals[1]["eval_tokens"], "tokens of the evaluation")


def test_16_bits_have_the_losses_of_the_cpu():
    for extra in (("--precision", "bf16"), ("--precision", "fp16", "--loss-scale", "dynamic")):
        args = (20, "--fault", "nonfinite@3")
        cuda = train_cuda(mlp((*extra, *TARGET)), *args, data=samples())
        same_steps(cuda, train(mlp(extra), *args, data=samples()), LOW_TOLERANCE)


def test_16_bit_attention_has_the_losses_of_the_cpu():
    """Tensor cores, with dropout: heads of 13, read by elements, and of 16, by 16 bytes."""
    data = tokens(400, 61)
    for extra in (("--precision", "bf16"), ("--precision", "fp16", "-D", "width=32")):
        cuda = train_cuda(gpt((*extra, *TARGET)), 10, data=data)
        same_steps(cuda, train(gpt(extra), 10, data=data), LOW_TOLERANCE)


def test_wide_kernels_have_the_losses_of_the_cpu():
    """Widths of whole packs, a vocabulary whose rows begin anywhere, rows enough that blocks share sums."""
    model, data = dict(GPT, width=64, T=16, ctx=16, B=9, vocab=1531), tokens(2000)
    for extra, tolerance in (((), TOLERANCE), (("--precision", "bf16"), LOW_TOLERANCE)):
        exe = [compile_model(os.path.join(MODELS, "gpt2.zm"), model, (*extra, *target)) for target in (TARGET, ())]
        cuda, cpu = train_cuda(exe[0], 4, "--dtype", "u8", data=data), train(exe[1], 4, "--dtype", "u8", data=data)
        same_steps(cuda, cpu, tolerance)


def test_graphs_and_streams_change_no_bit():
    args = (6, "--fault", "nonfinite@2", "--dtype", "u8")
    data = tokens(400, 61)
    graphs = train_cuda(gpt(TARGET), *args, data=data)
    same(train_cuda(gpt(TARGET), *args, data=data, ZMC_GRAPHS=0), graphs, "metrics without graphs")
    same(train_cuda(gpt(TARGET), *args, data=data, GPUSIM_SEED=5), graphs, "metrics in another order")


def test_steps_take_as_long_as_the_run():
    m = path("times.jsonl")
    started = time.monotonic()
    run([mlp(TARGET), "--data", samples(), "--steps", 12, "--metrics", m], env=gpu_env()[0])
    took = time.monotonic() - started
    steps = [line["step_s"] for line in json_lines(m)]
    assert len(steps) == 12 and min(steps) > 0 and sum(steps) < took, (steps, took)


def why_exhausted(target, faults):
    exe = compile_model(os.path.join(MODELS, "mlp.zm"), MLP, ("--loss-scale", "dynamic:init=2,min=1,hysteresis=1,window=100", *target))
    m = path("exhausted.jsonl")
    if os.path.exists(m):
        os.unlink(m)
    err = run([exe, "--data", samples(), "--steps", 20, "--fault", faults, "--metrics", m], 2, env=gpu_env()[0] if target else None)[1]
    return err[err.index("error: "):], metrics(m)


def test_an_exhausted_scale_names_its_step():
    for faults, step in (("nonfinite@3,4", 4), ("nonfinite@3,7", 7), ("nonfinite@1,2,3", 2)):
        cuda, cpu = why_exhausted(TARGET, faults), why_exhausted((), faults)
        contains(cuda[0], f"step {step} overflowed at the least loss scale, 1, with no hysteresis left", "first number that is not finite: ", "mlp.zm:8:10: gradient of fc1.weight[0] = inf")
        same(cuda[0].split(", written by")[0], cpu[0].split(", written by")[0], "explanations")
        same_steps(cuda[1], cpu[1])
        same(cuda[1][-1]["step"], step, "last steps")


def test_a_signal_stops_and_saves():
    exe, data = mlp(TARGET), samples()
    env, report = gpu_env()
    m, saved = path("signal.jsonl"), path("ck-signal")
    p = subprocess.Popen([exe, "--data", data, "--steps", "1000000", "--metrics", m, "--save", saved], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (os.path.exists(m) and len(read(m).splitlines()) > 3):
        time.sleep(0.01)
        assert p.poll() is None
    p.send_signal(signal.SIGTERM)
    same(p.wait(60), 128 + signal.SIGTERM, "exit code")
    no_reports(report)
    stopped = metrics(m)
    same(os.listdir(saved), [f"step-{len(stopped):08d}"], "checkpoints")
    whole = train_cuda(exe, len(stopped) + 3, data=data)
    same(stopped, whole[:len(stopped)], "metrics before the signal")
    same(train_cuda(exe, len(whole), "--resume", saved, data=data), whole[len(stopped):], "metrics after resuming")


def test_profile_shows_every_command():
    trace = path("trace-steps.json")
    err = run([mlp(TARGET), "--data", samples(), "--steps", 3, "--profile", trace], env=gpu_env()[0])[1]
    contains(err, "copies in the GPU's memory", "sum of limits")  # not the CPU's peaks
    events = [e for e in json.loads(read(trace))["traceEvents"] if e["ph"] == "X"]
    at, per_step = 0, len(events) // 3
    same([e["name"] for e in events[:per_step]], [e["name"] for e in events[-per_step:]], "commands of two steps")
    for e in events:
        assert e["dur"] >= 0 and e["ts"] >= at - 1, e  # one after another, to a microsecond
        at = e["ts"] + e["dur"]


def test_checkpoints_go_both_ways():
    data = samples()
    whole = train_cuda(mlp(TARGET), 6, data=data)
    train_cuda(mlp(TARGET), 3, "--save", path("ck-cuda"), data=data)
    same(train_cuda(mlp(TARGET), 6, "--resume", path("ck-cuda"), data=data), whole[3:], "metrics after resuming")
    same_steps(whole[3:], train(mlp(), 6, "--resume", path("ck-cuda"), data=data))
    train(mlp(), 3, "--save", path("ck-cpu"), data=data)
    same_steps(train_cuda(mlp(TARGET), 6, "--resume", path("ck-cpu"), data=data), whole[3:])
    train(mlp(), 3, "--export", path("w.st"), data=data)
    again = train_cuda(mlp(TARGET), 1, "--load", path("w.st"), data=data)
    same_steps(again, train(mlp(), 1, "--load", path("w.st"), data=data))


def test_generates_the_same_text():
    env, _ = gpu_env()
    args = ("--data", tokens(400, 61), "--dtype", "u8", "--steps", 0, "--generate", 12, "--prompt", "\x01\x02")
    same(run([gpt(TARGET), *args], env=env)[0], run([gpt(), *args])[0], "texts")


def test_observers_see_what_the_gpu_wrote():
    env, _ = gpu_env()
    data = samples()
    out, err = run([mlp(TARGET), "--data", data, "--steps", 1, "--check-numerics", "--audit-numerics", "--profile", path("trace.json")], env=env)
    contains(out, "numerics of step 0")
    bad = write_safetensors("nan.safetensors", {"x": ("F32", [40, MLP["in"]], struct.pack("<f", float("nan")) * (40 * MLP["in"])), "y": safetensors(data)["y"]})
    _, err = run([mlp(TARGET), "--data", bad, "--steps", 1, "--check-numerics"], 2, env=env)
    contains(err, "first number that is not finite: ", "mlp.zm:")


def test_a_machine_without_a_driver():
    env = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    try:
        import ctypes
        ctypes.CDLL("libcuda.so.1")
        return  # this machine has one
    except OSError:
        pass
    _, err = run([mlp(TARGET), "--data", samples(), "--steps", 1], 1, env=env)
    contains(err, "libcuda.so.1", "https://www.nvidia.com/drivers", "--target cpu")
    contains(run([mlp(TARGET), "--info"], env=env)[0], TARGET[1])


def test_code_for_a_newer_gpu_is_refused():
    if IS_DRIVER:
        print("skipped: test_code_for_a_newer_gpu_is_refused: which GPU is newer than this one is not known")
        return
    env, _ = gpu_env()
    exe = mlp(("--target", "cuda:sm_90"))
    _, err = run([exe, "--data", samples(), "--steps", 1], 1, env=env)
    contains(err, "the kernels, made for cuda:sm_90", "--target cuda:sm_80")
    assert "newer driver" not in err and "--precision" not in err, err
    exe = mlp(("--target", "cuda:sm_90", "--precision", "bf16"))
    _, err = run([exe, "--data", samples(), "--steps", 1], 1, env=dict(env, GPUSIM_ARCH="75"))
    contains(err, "--target cuda:sm_75 --precision fp16 --loss-scale dynamic")


def test_the_cache_is_never_required():
    cache = path("cache-of-its-own")
    args = [ZMC, os.path.join(MODELS, "mlp.zm"), *defines(MLP), *TARGET]

    def compiled(env):
        run([*args, "-o", path("cached")], env=dict(os.environ, **env))
        return read(path("cached"))

    first = compiled({"ZMC_CACHE": cache})
    files = sorted(os.listdir(cache))
    assert files, "nothing was kept"
    same(compiled({"ZMC_CACHE": cache}), first, "executables out of the cache")
    for name in files:  # damaged: as if it were not there
        whole = read(os.path.join(cache, name))
        with open(os.path.join(cache, name), "wb") as f:
            f.write(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    same(compiled({"ZMC_CACHE": cache}), first, "executables beside a damaged cache")
    same(sorted(os.listdir(cache)), files, "files of the cache")
    same(compiled({"ZMC_CACHE": "/proc/no/such"}), first, "executables without a place for a cache")


def test_refusals():
    model = os.path.join(MODELS, "mlp.zm")
    _, err = run([ZMC, model, *TARGET, "-o", path("x")], 1, env=dict(os.environ, ZMC_NVRTC="/no/nvrtc"))
    contains(err, "NVRTC", "ZMC_NVRTC", "unset it", "pip install nvidia-cuda-nvrtc")
    _, err = run([ZMC, model, "--target", "cuda:sm_20", "-o", path("x")], 1)
    contains(err, "cuda:sm_20: NVRTC", "but for sm_", ", sm_90", "nvidia-cuda-nvrtc-cu12")
    contains(run([ZMC, model, "--target", "cuda:sm_20", "--emit", "kernels"])[0], "__global__")  # needs no NVRTC
    contains(run([ZMC, "--help"])[0], "kernels: also for a GPU that NVRTC does not know")
    _, err = run([ZMC, model, "--target", "cuda:sm_99", "-o", path("x")], 1)
    contains(err, "cuda:sm_99: NVRTC", "compute_cap")
    _, err = run([ZMC, model, "--target", "cuda:sm_999", "-o", path("x")], 1)
    contains(err, "cuda:sm_999: NVRTC", "newer NVRTC")
    for name in ("sm_", "sm_8x", "sm_080", "sm_90b", "sm_9999", "compute_80", "hopper"):
        _, err = run([ZMC, model, "--target", f"cuda:{name}", "-o", path("x")], 1)
        contains(err, f"--target cuda:{name}: an architecture is written like sm_90; there are sm_75, sm_80")
    _, err = run([ZMC, model, "--target", "cuda:sm_75", "--precision", "bf16", "-o", path("x")], 1)
    contains(err, "sm_75 have no bf16", "--precision fp16")
    env, _ = gpu_env()
    _, err = run([mlp(TARGET), "--data", samples(), "--steps", 1, "--poison"], 1, env=env)
    contains(err, "--poison", "--target cpu")


def json_lines(name):
    return [json.loads(line) for line in read(name).decode().splitlines()]


if __name__ == "__main__":
    main_on_gpu()
