"""bench_dist.py -- ZeRO stages over ranks beside their peers; used by `tools/bench --dist`.

Each program is R ranks of one thread on this machine, GPT-2 in f32, the same batch for each rank:

    zmc stage 0..3       `zmc --ranks R --zero S`, started by `zmc run`
    DDP                  PyTorch, beside stage 0
    ZeroRedundancyOpt.   PyTorch, beside stages 1 and 2
    FSDP2                PyTorch's fully_shard, resharding after the forward, beside stage 3
    DeepSpeed ZeRO-1, 3  beside stages 1 and 3, where DeepSpeed installs and runs

All peers talk over gloo (DeepSpeed takes its own shared memory where that builds) and update with the fused AdamW where it works.
Rounds alternate; a program is started anew in each of them, and its first two steps are left out.  The time of a step is the
slowest rank's; of zmc it is step_s of the metrics.
"""
import collections
import glob
import json
import os
import socket
import statistics
import subprocess
import sys

TOOLS = os.path.dirname(os.path.abspath(__file__))
N_WARM = 2
LIMIT_S = 600  # of one program in one round

# The bars: a stage's step is at most this share of its peer's.
PEERS = [("zmc stage 0", "DDP", 0.5), ("zmc stage 1", "ZeroRedundancyOpt.", 0.5), ("zmc stage 2", "ZeroRedundancyOpt.", 0.5), ("zmc stage 3", "FSDP2", 0.5),
         ("zmc stage 1", "DeepSpeed ZeRO-1", 0.4), ("zmc stage 3", "DeepSpeed ZeRO-3", 0.4), ("zmc stage 3", "zmc stage 0", 1.3)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Stage:
    """Ours: compiled once for its ranks and stage."""

    def __init__(self, args, zmc, stage):
        self.name, self.how, self.args, self.zmc, self.reason = f"zmc stage {stage}", "", args, zmc, None

    def run(self, steps):
        metrics = os.path.join(self.zmc.work, "metrics.jsonl")
        if os.path.exists(metrics):
            os.unlink(metrics)
        launch = [os.path.join(self.args.build, "zmc"), "run", "-n", str(self.args.ranks)]
        self.zmc.start(steps + N_WARM, "--threads", "1", "--metrics", metrics, launch=launch)
        with open(metrics, encoding="utf-8") as f:
            lines = [json.loads(line) for line in f]
        return {"times": [l["step_s"] for l in lines], "losses": [l["loss"] for l in lines], "peak": self.zmc.peak}


class Peer:
    """Ranks of bench_dist_peer.py.  What it cannot do is its reason, and it is left out from then on."""

    def __init__(self, args, case, python, name, mode, **spec):
        self.name, self.how, self.args, self.python, self.reason = name, "", args, python, None
        self.spec = {**case, "mode": mode, "ranks": args.ranks, **spec}

    def run(self, steps):
        env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(self.args.ranks),
               "LOCAL_WORLD_SIZE": str(self.args.ranks), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        command = [self.python, os.path.join(TOOLS, "bench_dist_peer.py"), json.dumps({**self.spec, "steps": steps + N_WARM})]
        ranks = [subprocess.Popen(command, env={**env, "RANK": str(r), "LOCAL_RANK": str(r)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) for r in range(self.args.ranks)]
        answers = [self.answer(p) for p in ranks]
        if self.reason:
            return None
        self.how = answers[0]["how"]
        return {"times": [max(t) for t in zip(*(a["times"] for a in answers))], "losses": answers[0]["losses"], "peak": max(a["peak"] for a in answers)}

    def answer(self, p):
        try:
            out, err = p.communicate(timeout=1 if self.reason else LIMIT_S)
        except subprocess.TimeoutExpired:
            p.kill()
            out, err = p.communicate()
            err += f"\nno answer in {LIMIT_S} s"
        if p.returncode == 0 and out.strip():
            return json.loads(out.splitlines()[-1])
        self.reason = self.reason or (err.strip().splitlines() or [f"exit code {p.returncode}"])[-1]
        return None


def deepspeed_python(args, python):
    """(Python of an environment of its own over that of `python`, None), or (None, why there is none)."""
    env = os.path.join(args.build, "bench-deepspeed")
    own = os.path.join(env, "bin", "python")

    def run(*command):
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env={**os.environ, "DS_ACCELERATOR": "cpu"})

    if run(python, "-c", "import deepspeed").returncode == 0:
        return python, None
    if not os.path.exists(own):
        made = run(python, "-m", "venv", env)
        if made.returncode:
            return None, made.stdout.strip().splitlines()[-1]
    if run(own, "-c", "import deepspeed").returncode == 0:
        return own, None
    print(f"bench: installing deepspeed into {env} ...", file=sys.stderr)
    base = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    for site in glob.glob(os.path.join(env, "lib", "python3*", "site-packages")):
        with open(os.path.join(site, "base.pth"), "w", encoding="utf-8") as f:
            f.write(base + "\n")
    for packages in (["setuptools", "wheel", "ninja"], ["--no-build-isolation", "deepspeed"]):
        done = run(own, "-m", "pip", "install", "-q", *packages)
        if done.returncode:
            return None, f"pip install {packages[-1]}: {done.stdout.strip().splitlines()[-1]}"
    return own, None


def programs(args, case, compile_stage, python):
    out = [Stage(args, compile_stage(s), s) for s in range(4)]
    out += [Peer(args, case, python, "DDP", "ddp"), Peer(args, case, python, "ZeroRedundancyOpt.", "zero"), Peer(args, case, python, "FSDP2", "fsdp2", fused=True)]
    own, why = (None, "left out by --no-deepspeed") if args.no_deepspeed else deepspeed_python(args, python)
    for stage in (1, 3):
        out.append(Peer(args, case, own, f"DeepSpeed ZeRO-{stage}", f"deepspeed{stage}"))
        out[-1].reason = why
    return out


def fused_or_not(peer):
    """The update is the fused one where that works."""
    if not peer.run(1):
        peer.reason, peer.spec["fused"] = None, False


def bench_dist(args, case, compile_stage, python):
    """compile_stage(stage) gives a tools/bench Zmc."""
    runs = programs(args, case, compile_stage, python)
    for peer in runs[4:]:
        if "fused" in peer.spec:
            fused_or_not(peer)
    times, last, peaks = collections.defaultdict(list), {}, {}
    for i in range(args.rounds):
        for r in runs:
            answer = None if r.reason else r.run(args.steps)
            if answer:
                times[r.name] += answer["times"][N_WARM:]
                last[r.name], peaks[r.name] = answer["losses"], max(answer["peak"], peaks.get(r.name, 0))
                print(f"round {i + 1}: {r.name} {statistics.median(times[r.name][-args.steps:]):.3f} s", file=sys.stderr)
    rows = {
        r.name: {"reason": r.reason} if r.reason else
        {"how": r.how, "median_s": statistics.median(times[r.name]), "min_s": min(times[r.name]), "times_s": times[r.name], "peak_bytes": peaks[r.name], "losses": last[r.name]}
        for r in runs
    }
    return {"programs": rows, "ratios": [ratio(rows, *p) for p in PEERS], "stages_equal": len({tuple(last[r.name]) for r in runs if isinstance(r, Stage)}) == 1}


def ratio(rows, mine, theirs, bar):
    a, b = rows[mine], rows[theirs]
    out = {"mine": mine, "peer": theirs, "bar": bar}
    if "reason" in a or "reason" in b:
        return out
    return {**out, "medians": a["median_s"] / b["median_s"], "minima": a["min_s"] / b["min_s"]}


def print_dist(args, result):
    print(f"{args.ranks} ranks of one thread; the first {N_WARM} steps of each start are left out")
    print(f"{'':20} {'median s':>9} {'min s':>9} {'MiB/rank':>9}")
    for name, r in result["programs"].items():
        if "reason" in r:
            print(f"{name:20} not measured: {r['reason']}")
        else:
            print(f"{name:20} {r['median_s']:9.4f} {r['min_s']:9.4f} {r['peak_bytes'] / 2**20:9.1f}  {r['how']}")
    print(f"losses of the stages: {'equal' if result['stages_equal'] else 'NOT equal'}")
    print(f"\n{'step, zmc / peer':42} {'medians':>8} {'minima':>8} {'bar':>5}")
    for r in result["ratios"]:
        name = f"{r['mine']} / {r['peer']}"
        if "medians" in r:
            print(f"{name:42} {r['medians']:8.3f} {r['minima']:8.3f} {r['bar']:5.1f}  {'met' if r['medians'] <= r['bar'] else 'MISSED'}")
        else:
            print(f"{name:42} {'-':>8} {'-':>8} {r['bar']:5.1f}  not measured")
