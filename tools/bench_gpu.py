"""bench_gpu.py -- steps of GPT-2 on a GPU beside PyTorch's eager mode and torch.compile; used by `tools/bench --gpu` and tools/gpu-check.

PyTorch runs as it is used: f32 weights, autocast to the precision, AdamW(fused=True), no wait within a round; zmc as compiled
(`--target cuda:sm_XX --precision ...`).  Rounds alternate.  The time of a step is a round's, of all its steps together, divided
by their number: with metrics read one step late a single step's says little.  The first N_WARM steps of each process are left out.
"""
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time

TOOLS = os.path.dirname(os.path.abspath(__file__))
N_WARM = 3
WAY = {"torch eager": "fused", "torch compile": "compile"}  # mode of bench_torch.py


class Ours:
    """An executable of --target cuda, started anew in each round."""

    def __init__(self, name, exe, data, work, env=None, seconds_left=lambda: 600):
        self.name, self.exe, self.data, self.work, self.env, self.seconds_left = name, exe, data, work, env, seconds_left
        self.reason, self.arena, self.losses = None, 0, []

    def run(self, steps):
        """Seconds a step, or None: `reason` says why."""
        metrics = os.path.join(self.work, "metrics.jsonl")
        if os.path.exists(metrics):
            os.unlink(metrics)
        command = [self.exe, "--data", self.data, "--steps", str(steps + N_WARM), "--metrics", metrics]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=self.env,
                                  timeout=max(1, self.seconds_left()), check=False)
        except subprocess.TimeoutExpired:
            self.reason = "it took longer than the time that is left"
            return None
        if done.returncode:
            self.reason = f"exit code {done.returncode}: {done.stderr.strip()[-600:]}"
            return None
        with open(metrics, encoding="utf-8") as f:
            lines = [json.loads(line) for line in f]
        self.arena, self.losses = lines[-1]["arena_bytes"], [l["loss"] for l in lines]
        return sum(l["step_s"] for l in lines[N_WARM:]) / steps

    def close(self):
        pass


class Torch:
    """bench_torch.py on the GPU: one process for all rounds."""

    def __init__(self, name, python, case, precision, env=None, seconds_left=lambda: 600):
        self.name, self.seconds_left, self.reason, self.peak = name, seconds_left, None, 0
        spec = {**case, "threads": os.cpu_count(), "precision": precision, "device": "cuda", "mode": WAY[name]}
        self.errors = tempfile.TemporaryFile()
        self.p = subprocess.Popen([python, os.path.join(TOOLS, "bench_torch.py"), json.dumps(spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=self.errors, text=True, env=env)
        self.is_warm = False

    def ask(self, steps):
        """The answer, or None once it has failed or run out of time."""
        late = threading.Timer(max(1, self.seconds_left()), self.p.kill)
        late.start()
        start = time.monotonic()
        try:
            self.p.stdin.write(f"{steps}\n")
            self.p.stdin.flush()
            line = self.p.stdout.readline()
        except BrokenPipeError:
            line = ""
        took, is_late = time.monotonic() - start, not late.is_alive()
        late.cancel()
        if line:
            return json.loads(line)
        self.p.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip()
        self.reason = f"stopped after {took:.0f} s, all that was left" if is_late else f"exit code {self.p.returncode}: {said[-600:]}"
        return None

    def run(self, steps):
        for n in ([] if self.is_warm else [N_WARM]) + [steps]:
            answer = self.ask(n)
            if not answer:
                return None
        self.is_warm, self.peak = True, answer["peak"]
        return answer["times"][0]

    def close(self):
        try:
            self.p.stdin.close()
            self.p.wait(timeout=20)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.p.kill()
            self.p.wait()


def bench_gpu(ours, peers, items, rounds, steps, say=lambda text: None):
    """{programs: {name: {times_s, min_s, median_s, tokens_s} or {reason}}, speed_to: {peer: ratio of tokens/s, ours / peer's}}

    items: of a step.  All are warmed up by a first round that does not count."""
    runners = [ours, *peers]
    times = {r.name: [] for r in runners}
    for i in range(rounds + 1):
        for r in runners:
            t = None if r.reason else r.run(steps)
            if t is not None and i > 0:
                times[r.name].append(t)
        say(f"round {i} of {rounds}: " + ", ".join(f"{r.name} " + (f"{times[r.name][-1] * 1e3:.2f} ms" if times[r.name] else "-") for r in runners))
    for r in runners:
        r.close()
    programs = {}
    for r in runners:
        t = times[r.name]
        row = {"times_s": t, "min_s": min(t), "median_s": statistics.median(t), "tokens_s": items / min(t)} if t else {}
        programs[r.name] = {**row, "memory_bytes": r.arena if r is ours else r.peak} | ({"reason": r.reason} if r.reason else {})
    mine = programs[ours.name].get("min_s")
    ratios = {r.name: programs[r.name]["min_s"] / mine for r in peers if mine and "min_s" in programs[r.name]}
    return {"programs": programs, "speed_to": ratios, "losses": ours.losses}


def bench_text(result):
    out = [f"{'':15} {'min ms':>9} {'median ms':>10} {'tokens/s':>10} {'GPU MiB':>9}"]
    for name, r in result["programs"].items():
        if "min_s" in r:
            out.append(f"{name:15} {r['min_s'] * 1e3:9.2f} {r['median_s'] * 1e3:10.2f} {r['tokens_s']:10.0f} {r['memory_bytes'] / 2**20:9.0f}")
        if "reason" in r:
            out.append(f"{name:15} not measured: {r['reason']}" if "min_s" not in r else f"{name:15} later: {r['reason']}")
    out += [f"zmc's tokens/s / {name}'s: {ratio:.3f} (minima)" for name, ratio in result["speed_to"].items()]
    return "\n".join(out)
