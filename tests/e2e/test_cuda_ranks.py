"""Ranks on GPUs: on the simulator and the stand-in for NCCL they train as the CPU does, at every stage, whatever the order of
streams; they allocate and send what the plan says.  What goes wrong: test_cuda_faults.py.

Ranks are processes that meet over a file (--rendezvous).  A step is of GLOBAL samples, whatever the ranks, in bf16 in two
micro-batches, with a dynamic loss scale, and an overflow on the last rank: each run shows all of it.
"""
import time

from gputest import *

GLOBAL, STEPS, OVERFLOW = 8, 20, 3
# Odd sizes for f32; in 16 bits heads of 16, which tensor cores take.
ODD = {"layers": 2, "heads": 2, "width": 26, "ctx": 9, "T": 9, "vocab": 61, "dropout": 0.1, "warmup": 3, "total": 40, "lr": 2e-3}
EVEN = {**ODD, "width": 32, "T": 8, "ctx": 8}
SCALE = ("--loss-scale", "dynamic:init=1024,hysteresis=1")
# Sizes, micro-batches, options, tolerance of the losses.
PRECISIONS = {"fp32": (ODD, 1, (), 1e-5), "bf16": (EVEN, 2, ("--precision", "bf16"), 1e-2), "fp16": (EVEN, 1, ("--precision", "fp16"), 1e-2)}
# Every stage on 2 and on 4 ranks in f32; in 16 bits each stage, on 2 or on 4.
RUNS = {"fp32": [(1, 0), *((n, z) for n in (2, 4) for z in range(4))], "bf16": [(1, 0), (2, 1), (2, 3), (4, 2)], "fp16": [(2, 0), (2, 2), (4, 1), (4, 3)]}
TOKENS = ("--data", tokens(400, 61), "--dtype", "u8")
LIMIT_S = 120  # of a run that ends by itself


def options(precision, n, zero):
    d, accumulate, more, _ = PRECISIONS[precision]
    return {**d, "B": GLOBAL // accumulate // n}, (*more, *SCALE, "--accumulate", accumulate, *(("--ranks", n, "--zero", zero) if n > 1 else ()))


def exe_of(precision, n, zero, target=TARGET):
    d, extra = options(precision, n, zero)
    return compile_model(d=d, extra=(*extra, *target))


class Ranks:
    """n processes of one run on GPUs."""

    def __init__(self, n, exe, *args, data=TOKENS, **env):
        self.n, self.exe = n, exe
        self.files = {name: path(name) for name in ("ranks.jsonl", "meet", "nccl-bytes", "allocations")}
        for name in self.files.values():
            if os.path.exists(name):
                os.unlink(name)
        common, self.report = gpu_env(n, GPUSIM_NCCL_BYTES=self.files["nccl-bytes"], GPUSIM_ALLOCATIONS=self.files["allocations"], **env)
        many = ["--rendezvous", self.files["meet"]] if n > 1 else []
        command = [str(a) for a in [exe, *data, "--threads", 1, "--metrics", self.files["ranks.jsonl"], *many, *args]]
        self.started = time.monotonic()
        self.processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                           env={**common, "ZMC_RANK": str(r), "ZMC_WORLD": str(n)}) for r in range(n)]

    def end(self, within_s=LIMIT_S, code=0):
        """Each rank's stderr; all must end in time with the exit code (None: any)."""
        said = []
        try:
            for p in self.processes:
                said.append(p.communicate(timeout=max(0.1, within_s - (time.monotonic() - self.started)))[1].decode(errors="replace"))
        except subprocess.TimeoutExpired:
            for p in self.processes:
                p.kill()
            rest = [p.communicate()[1].decode(errors="replace") for p in self.processes]
            raise AssertionError(f"it still ran after {within_s} s: {rest}") from None
        codes = [p.returncode for p in self.processes]
        assert code is None or codes == [code] * self.n, f"exit codes {codes}, not {code}:\n" + "\n".join(said)
        return said

    def metrics(self):
        return metrics(self.files["ranks.jsonl"])

    def lines(self, name):
        return [json.loads(line) for line in read(self.files[name]).decode().splitlines()]


def steps_on(n, exe, steps, *args, **env):
    """Metrics of a run that must end well, with nothing for the simulator to report."""
    r = Ranks(n, exe, "--steps", steps, *args, **env)
    r.end()
    no_reports(r.report)
    return r.metrics()


def can_run(n):
    """Ranks want a GPU each; said when there are too few."""
    if n <= gpus():
        return True
    print(f"skipped: runs on {n} ranks: {gpus()} GPUs here")
    return False


def fault(n):
    return ("--fault", f"nonfinite@{OVERFLOW}:{n - 1}" if n > 1 else f"nonfinite@{OVERFLOW}")


def cpu_steps(precision):
    """The CPU back end on one rank: the same samples a step."""
    return train(exe_of(precision, 1, 0, ()), STEPS, *TOKENS[2:], *fault(1), data=TOKENS[1], name=f"cpu-{precision}.jsonl")


def plan_of(precision, n, zero):
    d, extra = options(precision, n, zero)
    out, _ = run([ZMC, "plan", GPT2, *defines(d), *extra, *TARGET, "--json"])
    return json.loads(out)


# ---- numbers, memory, volume


def check_run(precision, n, zero, cpu):
    what = f"{precision} on {n} ranks at stage {zero}"
    r = Ranks(n, exe_of(precision, n, zero), "--steps", STEPS, *fault(n))
    r.end()
    no_reports(r.report)
    steps = r.metrics()
    same(len(steps), STEPS, f"steps of {what}, and {STEPS}:")
    for a, b in zip(steps, cpu):
        for key in ("step", "update", "skipped", "lr", "loss_scale", "loss_scale_next", "hysteresis_next"):
            same(a[key], b[key], f"{what}: {key} of step {a['step']} on GPUs and on the CPU")
        close(a["loss"], b["loss"], PRECISIONS[precision][-1], f"{what}: losses of step {a['step']} on GPUs and on the CPU")
    same([s["step"] for s in steps if s["skipped"]], [OVERFLOW], f"{what}: skipped steps")
    if not IS_DRIVER:
        check_plan(what, r, plan_of(precision, n, zero), steps)


def check_plan(what, r, plan, steps):
    arenas = [rank["arena"] for rank in plan["per_rank"]]
    same({s["arena_bytes"] for s in steps}, {max(arenas)}, f"{what}: arena_bytes of the metrics and the plan")
    taken = r.lines("allocations")
    for rank, p in enumerate(r.processes):
        mine = [a["bytes"] for a in taken if a["pid"] == p.pid]
        assert mine.count(arenas[rank]) == 1, f"{what}: rank {rank} takes {mine} of its GPU, the plan's arena is {arenas[rank]}"
        assert sum(mine) - arenas[rank] < 1 << 16, f"{what}: rank {rank} takes more than the arena: {mine}"
    if r.n == 1:
        return
    planned = sum(c["bytes"] for c in plan["comm"])
    same({s["comm_bytes"] for s in steps}, {planned}, f"{what}: comm_bytes of the metrics and the plan")
    counted = r.lines("nccl-bytes")
    same(sorted(c["rank"] for c in counted), list(range(r.n)), f"{what}: ranks that NCCL counted")
    scalars = STEPS * sum(c["bytes"] for c in plan["comm"] if c["what"] == "scalars")
    for c in counted:  # of the scalars, which the ranks do not divide, rank 0 has the most
        rank, sent = c["rank"], c["bytes"] - c["scalar_bytes"]
        same(sent, planned * STEPS - scalars, f"{what}: rank {rank}'s bytes as NCCL counts them, {sent}, and the plan's, {planned * STEPS - scalars},")
        assert c["scalar_bytes"] == scalars if rank == 0 else 0 < c["scalar_bytes"] <= scalars, f"{what}: rank {rank}'s scalars take {c['scalar_bytes']} bytes, not {scalars}"


def check_precision(precision):
    cpu = cpu_steps(precision)
    for n, zero in RUNS[precision]:
        if can_run(n):
            check_run(precision, n, zero, cpu)


def test_f32_is_the_cpus():
    check_precision("fp32")


def test_bf16_is_the_cpus():
    check_precision("bf16")


def test_fp16_is_the_cpus():
    check_precision("fp16")


def test_mlp_is_the_cpus():
    """Sizes that the ranks do not divide."""
    if not can_run(2):
        return
    d, n = {"in": 21, "hidden": 37, "classes": 7, "lr": 1e-2}, 41
    x = struct.pack(f"<{n * 21}f", *(((i * 7919) % 1013 - 506) / 400 for i in range(n * 21)))
    data = write_safetensors("samples.safetensors", {"x": ("F32", [n, 21], x), "y": ("I32", [n], struct.pack(f"<{n}i", *(i * i % 7 for i in range(n))))})
    model = os.path.join(MODELS, "mlp.zm")
    cpu = train(compile_model(model, {**d, "B": 6}, SCALE), STEPS, *fault(1), data=data, name="mlp.jsonl")
    r = Ranks(2, compile_model(model, {**d, "B": 3}, (*SCALE, "--ranks", 2, "--zero", 2, *TARGET)), "--steps", STEPS, *fault(2), data=("--data", data))
    r.end()
    no_reports(r.report)
    for a, b in zip(r.metrics(), cpu, strict=True):
        same([a[k] for k in ("update", "skipped", "loss_scale_next")], [b[k] for k in ("update", "skipped", "loss_scale_next")], f"step {a['step']} of mlp")
        close(a["loss"], b["loss"], 1e-5, f"losses of step {a['step']} of mlp on GPUs and on the CPU")


def test_any_order_of_streams():
    """Ten orders of streams, blocks and warps, and the commands one by one: the same losses."""
    if IS_DRIVER or not can_run(2):
        return
    exe = exe_of("bf16", 2, 3)
    first = steps_on(2, exe, 4)
    for seed in range(1, 10):
        same(steps_on(2, exe, 4, GPUSIM_SEED=seed), first, f"metrics with GPUSIM_SEED={seed} and with 0")
    same(steps_on(2, exe, 4, ZMC_GRAPHS=0), first, "metrics without graphs and with them")


# ---- the state


def test_checkpoints_go_both_ways():
    """GPU ranks to CPU ranks of another number and stage, and back."""
    if not can_run(2):
        return
    args = TOKENS
    gpu, cpu = exe_of("fp32", 2, 3), exe_of("fp32", 1, 0, ())
    whole = steps_on(2, gpu, 6)
    steps_on(2, gpu, 3, "--save", path("ck-gpu"))
    same(steps_on(2, gpu, 6, "--resume", path("ck-gpu")), whole[3:], "metrics after resuming on GPUs")
    for a, b in zip(train(cpu, 6, "--resume", path("ck-gpu"), *args[2:], data=args[1], name="resumed.jsonl"), whole[3:], strict=True):
        close(a["loss"], b["loss"], 1e-5, f"losses of step {a['step']} resumed on the CPU and gone on with on GPUs")
    train(cpu, 3, "--save", path("ck-cpu"), *args[2:], data=args[1], name="saved.jsonl")
    for a, b in zip(steps_on(2, gpu, 6, "--resume", path("ck-cpu")), whole[3:], strict=True):
        close(a["loss"], b["loss"], 1e-5, f"losses of step {a['step']} resumed on GPUs from the CPU's state")


if __name__ == "__main__":
    main_on_gpu()
