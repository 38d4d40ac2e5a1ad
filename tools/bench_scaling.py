"""bench_scaling.py -- how a step's cost grows; used by `tools/bench --scaling`.  One alternating run of zmc's executables alone:

1. two threads against one,
2. kernels for x86-64-v3 (AVX2) against those for this CPU,
3. GF/s of the plan's FLOPs, which count attention's, at five lengths T with B T = ctx constant: were the cost of a FLOP the
   same at every length, these would be equal,
4. the sum of the kernels' limits as a share of the step, as `OUT --profile` prints it.
"""
import json
import os
import re
import statistics
import subprocess
import sys

N_LENGTHS = 5
LIMITS = re.compile(r"^step ([0-9.]+) ms .* sum of limits ([0-9.]+) ms = ([0-9.]+) % of it \(([0-9.]+) %", re.M)


def lengths(ctx):
    """64, 128, 256, 512, 1024 for 1024."""
    return [ctx >> i for i in reversed(range(N_LENGTHS))]


def plan_flops(args, zmc):
    """FLOPs of a step."""
    plan = subprocess.run([os.path.join(args.build, "zmc"), "plan", *zmc.model, "--json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(plan.stdout)["flops"]


def programs(args, case, compile_case):
    """What is timed: {name: (program, threads)}."""
    native, v3 = compile_case(case, "native", args.cpu), compile_case(case, "v3", "x86-64-v3")
    out = {"1 thread": (native, 1), "2 threads": (native, 2), "x86-64-v3": (v3, args.threads)}
    if args.threads not in (1, 2):
        out["native"] = (native, args.threads)
    for t in lengths(case["ctx"]):
        out[f"T={t}"] = (compile_case({**case, "T": t, "B": case["ctx"] // t}, f"T{t}", args.cpu), args.threads)
    return out


def limits(zmc, threads, steps):
    """(step ms, sum of limits ms, its share in %, the share with what beats memory counted as 100) of one run."""
    found = LIMITS.search(zmc.roofline(threads, steps))
    if not found:
        sys.exit("bench: --profile printed no sum of limits")
    return [float(x) for x in found.groups()]


def ratios(mine, theirs):
    return {"minima": min(mine) / min(theirs), "medians": statistics.median(mine) / statistics.median(theirs)}


def sweep(args, case, timed, times):
    """Rates at each length, and how far they are from the shortest's."""
    rows, out = [], {}
    for t in lengths(case["ctx"]):
        row = {"T": t, "B": case["ctx"] // t, "flops": plan_flops(args, timed[f"T={t}"][0])}
        for how, f in (("minima", min), ("medians", statistics.median)):
            step = f(times[f"T={t}"])
            row[how] = {"step_s": step, "tokens_s": case["ctx"] / step, "gflop_s": row["flops"] / step * 1e-9}
        rows.append(row)
    for how in ("minima", "medians"):
        out[how] = max(abs(r[how]["gflop_s"] / rows[0][how]["gflop_s"] - 1) for r in rows) * 100
    return {"rows": rows, "max_deviation_percent": out}


def bench_scaling(args, case, compile_case):
    """compile_case(case, name, cpu) gives a tools/bench Zmc."""
    timed = programs(args, case, compile_case)
    times, shares = {name: [] for name in timed}, []
    for i in range(args.rounds):
        for name, (zmc, threads) in timed.items():
            times[name] += zmc.run(args.steps, threads)
        shares.append(limits(timed["1 thread"][0], args.threads, args.steps))
        last = ", ".join(f"{n} {statistics.median(t[-args.steps:]):.4f} s" for n, t in times.items())
        print(f"round {i + 1}: {last}, limits {shares[-1][2]:.1f} %", file=sys.stderr)
    native = {1: "1 thread", 2: "2 threads"}.get(args.threads, "native")
    return {
        "times_s": times,
        "threads": ratios(times["1 thread"], times["2 threads"]),
        "v3": ratios(times["x86-64-v3"], times[native]),
        "lengths": sweep(args, case, timed, times),
        "limits": {"rounds": shares, "best_percent": max(s[2] for s in shares), "median_percent": statistics.median(s[2] for s in shares)},
    }


def print_scaling(args, result):
    def both(r, digits, unit=""):
        return f"{r['minima']:.{digits}f}{unit} (minima), {r['medians']:.{digits}f}{unit} (medians)"

    print(f"{'':10} {'min s':>9} {'median s':>9}")
    for name, t in result["times_s"].items():
        print(f"{name:10} {min(t):9.4f} {statistics.median(t):9.4f}")
    print(f"speed of 2 threads / 1 thread: {both(result['threads'], 3)}")
    print(f"step of x86-64-v3 / this CPU's kernels, {args.threads} threads: {both(result['v3'], 3)}")
    print(f"\n{'T':>6} {'B':>5} {'GFLOP':>9} {'tokens/s':>10} {'GF/s':>8} {'tokens/s':>10} {'GF/s':>8}   (minima, medians)")
    for r in result["lengths"]["rows"]:
        rates = " ".join(f"{r[how]['tokens_s']:10.1f} {r[how]['gflop_s']:8.1f}" for how in ("minima", "medians"))
        print(f"{r['T']:6} {r['B']:5} {r['flops'] * 1e-9:9.2f} {rates}")
    print(f"largest deviation of GF/s from T = {result['lengths']['rows'][0]['T']}: {both(result['lengths']['max_deviation_percent'], 1, ' %')}")
    print(f"sum of limits / step: {result['limits']['best_percent']:.1f} % (best round), {result['limits']['median_percent']:.1f} % (median)")
