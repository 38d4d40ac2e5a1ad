"""gpu_profile.py -- each kernel's time against what the machine allows (tools/gpu-check): traces of `OUT --profile`, and the
counts of launches that `zmc --emit program` shows.

A kernel's limit is max(flops / rate, bytes / bandwidth), with the copy bandwidth and the rates measured in the same run; its
share is limit / time.
"""
import json
import re
import statistics

PRODUCT, ATTENTION, UPDATE = re.compile("matmul"), re.compile("sdpa"), re.compile("adam|lion|sgd|all_finite|sum_squares")
N_WARM = 1  # steps of a trace that are left out


def kind_of(kernel):
    if ATTENTION.search(kernel):
        return "attention"
    if PRODUCT.search(kernel):
        return "matmul"
    return "update" if UPDATE.search(kernel) else "other"


def rows_of(trace, steps, rates, bandwidth, dtype):
    """Kernels by name and size, the longest first.  rates: {dtype: flops/s}; dtype: of the products."""
    with open(trace, encoding="utf-8") as f:
        events = json.load(f)["traceEvents"]
    n = len(events) // steps
    if not n or len(events) % steps:
        raise ValueError(f"{trace}: {len(events)} events are not {steps} equal steps")
    groups = {}
    for i, e in enumerate(events):
        a = e["args"]
        groups.setdefault((a["kernel"], a["flops"], a["bytes"]), {"loc": a["loc"], "steps": [[] for _ in range(steps)]})["steps"][i // n].append(e["dur"] * 1e-6)
    rows = []
    for (kernel, flops, n_bytes), g in groups.items():
        seconds = statistics.median(sum(s) for s in g["steps"][min(N_WARM, steps - 1):])
        calls, kind = len(g["steps"][-1]), kind_of(kernel)
        rate = rates.get(dtype if kind in ("matmul", "attention") else "f32") or rates["f32"]
        limit = calls * max(flops / rate, n_bytes / bandwidth)
        rows.append({"kernel": kernel, "loc": g["loc"], "kind": kind, "calls": calls, "flops": flops, "bytes": n_bytes, "s": seconds,
                     "best_s": min(min(s) for s in g["steps"] if s), "limit_s": limit, "share": limit / seconds if seconds else None,
                     "by": "flops" if flops / rate > n_bytes / bandwidth else "bytes"})
    return sorted(rows, key=lambda r: -r["s"])


def rows_text(rows, shown=40):
    total = sum(r["s"] for r in rows) or 1
    out = [f"{'kernel':46} {'first at':18} {'calls':>5} {'ms':>9} {'share':>6} {'GFLOP':>9} {'MB':>9} {'TF/s':>7} {'GB/s':>7} {'of limit':>8}"]
    for r in rows[:shown]:
        t = r["s"] or 1
        loc = r["loc"].rsplit("/", 1)[-1]
        out.append(f"{r['kernel'][:46]:46} {loc[:18]:18} {r['calls']:5} {r['s'] * 1e3:9.3f} {100 * r['s'] / total:5.1f}% {r['calls'] * r['flops'] * 1e-9:9.2f} "
                   f"{r['calls'] * r['bytes'] * 1e-6:9.1f} {r['calls'] * r['flops'] / t * 1e-12:7.1f} {r['calls'] * r['bytes'] / t * 1e-9:7.0f} "
                   + (f"{100 * r['share']:6.0f} %" if r["share"] else "      -") + f" ({r['by']})")
    rest = rows[shown:]
    if rest:
        out.append(f"{len(rest)} more: {sum(r['calls'] for r in rest)} calls, {sum(r['s'] for r in rest) * 1e3:.3f} ms")
    limit = sum(r["limit_s"] for r in rows)
    out.append(f"sum {total * 1e3:.3f} ms of kernels, {sum(r['calls'] for r in rows)} launches; sum of limits {limit * 1e3:.3f} ms = {100 * limit / total:.1f} % of it")
    return "\n".join(out)


def launches(program, function="last"):
    """Names of the kernels that a function launches, in order, and the number of buckets; from `zmc --emit program`."""
    names, n_buckets, inside = [], 0, False
    for line in program.splitlines():
        if line.startswith("function "):
            inside = line.split()[1].rstrip(":") == function
        if inside and (m := re.match(r"\s+\d+: kernel \d+ (\S+)", line)):
            names.append(m.group(1))
        n_buckets += bool(re.match(r"\s+buffer \d+ bucket\.\d+ .*cat=params", line))
    return names, n_buckets
