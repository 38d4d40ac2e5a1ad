"""gpu_check_report.py -- what tools/gpu-check measured: against the project's bars, and as text."""
import bench_gpu
import gpu_profile

# The bars of the CUDA target (docs/gpu.md).
TO_COMPILE, OF_COPY, OF_SDPA = 1.0, 0.85, 0.60
COMPILE_S, CACHED_S = 6.0, 1.0
LAYER_KERNELS, UPDATE_LAUNCHES = 22, 3


def judged(name, want, got, held, why=None):
    """held None: not judged, for the reason `why`."""
    return {"bar": name, "want": want, "got": got, "status": "not judged" if held is None else "pass" if held else "fail"} | ({"why": why} if why else {})


def bars(r):
    """Every bar; times of a simulator are never judged."""
    return [*speed_bars(r), *kernel_bars(r), *compile_bars(r)]


def speed_bars(r):
    name, want = "GPT-2 124M, 16 bits: tokens/s against torch.compile", f">= {TO_COMPILE} x"
    ratio = ((r.get("bench") or {}).get("speed_to") or {}).get("torch compile")
    if r["simulated"] or ratio is None:
        return [judged(name, want, None, None, "simulated" if r["simulated"] else "one of the two was not measured")]
    return [judged(name, want, round(ratio, 3), ratio >= TO_COMPILE)]


def kernel_bars(r):
    rows = {p: rows for p, rows in (r.get("profile") or {}).get("rows", {}).items()}
    out = [attention_bar(r, rows)]
    names = {"update": "optimizer kernels of GPT-2: share of the copy bandwidth", "other": "elementwise and row kernels of GPT-2: share of the copy bandwidth"}
    for kind, name in names.items():
        large = [(p, row) for p, found in rows.items() for row in found if row["kind"] == kind and row["by"] == "bytes" and row["share"] is not None and is_large(r, row)]
        if r["simulated"] or not large:
            out.append(judged(name, f">= {OF_COPY}", None, None, "simulated" if r["simulated"] else "no such kernel was measured that exceeds the L2 cache"))
            continue
        low = [f"{p} {row['kernel']} ({row['loc']}) {row['share']:.2f}" for p, row in large if row["share"] < OF_COPY]
        worst = min(row["share"] for _, row in large)
        out.append(judged(name, f">= {OF_COPY}", round(worst, 3), not low, "; ".join(low) if low else f"{len(large)} kernels larger than the L2 cache"))
    return out


def is_large(r, row):
    """What stays in the L2 cache says nothing about memory."""
    return row["bytes"] > (r["machine"].get("l2_bytes") or 0)


def attention_bar(r, rows):
    name, want = "flash attention forward: speed against PyTorch's scaled_dot_product_attention", f">= {OF_SDPA} x"
    precision = (r.get("bench") or {}).get("precision", "bf16")
    theirs = ((r.get("torch") or {}).get("sdpa") or {}).get("bf16" if precision == "bf16" else "f16")
    ours = [row for row in rows.get(precision, []) if row["kind"] == "attention" and "grad" not in row["kernel"]]
    batch = ((r.get("compile") or {}).get(precision) or {}).get("batch")
    if r["simulated"] or not theirs or not ours:
        return judged(name, want, None, None, "simulated" if r["simulated"] else "one of the two was not measured")
    ratio = theirs["forward_s"] * (batch / r["case"]["B"] if batch else 1) / (ours[0]["s"] / ours[0]["calls"])
    return judged(name, want, round(ratio, 3), ratio >= OF_SDPA)


def compile_bars(r):
    out = []
    made = r.get("compile") or {}
    for key, most, name in (("s", COMPILE_S, "zmc --target cuda, GPT-2 124M, nothing cached"), ("cached_s", CACHED_S, "the same, cached")):
        if not made or r["simulated"]:
            out.append(judged(name, f"<= {most} s", None, None, "tiny model" if r["simulated"] else "not measured"))
        else:
            worst = max(m[key] for m in made.values())
            out.append(judged(name, f"<= {most} s", round(worst, 2), worst <= most))
    n = r.get("counts")
    layer, update = "fused kernels of one GPT-2 layer, forward and backward", "launches of the whole update, for each bucket"
    if not n:
        return [*out, *(judged(name, f"<= {most}", None, None, "not counted") for name, most in ((layer, LAYER_KERNELS), (update, UPDATE_LAUNCHES)))]
    per_bucket = n["update"] / max(1, n["buckets"])
    return [*out, judged(layer, f"<= {LAYER_KERNELS}", n["layer"], n["layer"] <= LAYER_KERNELS),
            judged(update, f"<= {UPDATE_LAUNCHES}", round(per_bucket, 2), per_bucket <= UPDATE_LAUNCHES)]


# ---- text


def text(r):
    parts = [head(r), machine_text(r), peaks_text(r), bench_text(r), profile_text(r), ranks_text(r), tests_text(r), bars_text(r), only_text(r), missing_text(r)]
    return "\n\n".join(p for p in parts if p)


def head(r):
    out = ["gpu-check" + (": SIMULATED, sizes are tiny and times mean nothing" if r["simulated"] else "")]
    out.append(f"took {r['took_s']} s of {r['budget_s']:.0f} s: " + ", ".join(f"{p['name']} {p['took_s']:.0f} s ({p['status']})" for p in r["parts"]))
    return "\n".join([*out, summary(r)])


def machine_text(r):
    m = r.get("machine")
    if not m:
        return ""
    rows = [("device", f"{m['name']}, sm_{m['sm']}, {m['multiprocessors']} multiprocessors, {m['memory_bytes'] / 2**30:.1f} GiB, L2 {(m['l2_bytes'] or 0) / 2**20:.0f} MiB; "
             f"{m['devices']} device(s)"), ("driver", f"CUDA {m['cuda_of_driver']}; nvidia-smi (driver, SM clock, power): {m['nvidia_smi'] or '-'}"),
            ("NVRTC", m.get("nvrtc") or "-"), ("NCCL", m["nccl"] or "-"), ("target", m["target"]),
            ("host", f"{m['host']}, {m['cpus']} CPUs, Python {m['python']}; commit {m['commit'] or '-'}")]
    if r.get("torch"):
        rows.append(("PyTorch", f"{r['torch']['torch']}, CUDA {r['torch']['cuda']}, NCCL {r['torch']['nccl']}"))
    return "\n".join(f"{k:8} {v}" for k, v in rows)


def peaks_text(r):
    p, t = r.get("peaks"), r.get("torch")
    if not p:
        return ""
    copy = {"driver's copy": p["copy"]["driver"], "own kernel": p["copy"]["kernel"]} | ({"PyTorch": t["copy"]} if t else {})
    out = ["What this machine does at most", "copy, read and written, GB/s: " + ", ".join(f"{k} {v * 1e-9:.0f}" for k, v in copy.items())]
    for dtype, rate in p["products"].items():
        cublas = f"; cuBLAS by PyTorch {t['matmul'][dtype] * 1e-12:.1f}" if t else ""
        out.append(f"{dtype} products, TF/s: {rate * 1e-12:.1f} with operands in registers ({'FMA' if dtype == 'f32' else 'mma.sync'}){cublas}")
    if t:
        out += [f"scaled_dot_product_attention of {d}, ms: forward {s['forward_s'] * 1e3:.3f}, backward {s['backward_s'] * 1e3:.3f}" for d, s in t["sdpa"].items()]
    return "\n".join(out)


def bench_text(r):
    b = r.get("bench")
    if not b:
        return ""
    return f"GPT-2 {r['case']}, B={b['batch']}, {b['precision']}: steps, alternating rounds\n" + bench_gpu.bench_text(b)


def profile_text(r):
    p = r.get("profile")
    if not p:
        return ""
    out = [f"Kernels against max(flops / rate, bytes / {p['bandwidth'] * 1e-9:.0f} GB/s); rates, TF/s: " + ", ".join(f"{k} {v * 1e-12:.1f}" for k, v in p["rates"].items())]
    return "\n\n".join([*out, *(f"GPT-2 in {precision}, a step (median)\n" + gpu_profile.rows_text(rows) for precision, rows in p["rows"].items())])


def ranks_text(r):
    n = r.get("ranks")
    if not n:
        return ""
    out = [f"{n['ranks']} ranks, GPT-2 in {n['precision']}"]
    return "\n".join(out + [f"stage {s}: {v['tokens_s']:.0f} tokens/s of all, step {v['step_s'] * 1e3:.2f} ms, arena {v['arena_bytes'] / 2**20:.0f} MiB, "
                            f"{v['comm_bytes'] / 2**20:.1f} MiB sent by a rank" for s, v in n["stages"].items()])


def tests_text(r):
    return "\n".join(["Tests on this driver", *(f"{t['status']:8} {t['took_s']:6.1f} s  {t['name']}" + (f": {t['why']}" if t.get("why") else "") for t in r.get("tests") or [])]) \
        if r.get("tests") else ""


def bars_text(r):
    return "\n".join(["Bars", *(f"{b['status']:10} {b['bar']}: {'-' if b['got'] is None else b['got']} (want {b['want']})" + (f": {b['why']}" if b.get("why") else "")
                                for b in r["bars"])])


def only_text(r):
    return "\n".join(["What only hardware shows", *(f"{'ran here' if v['ran'] else 'not run':9} {v['what']}" for v in r["hardware_only"])])


def missing_text(r):
    return "\n".join(["What could not run", *(f"{m['what']}: {m['why']}" for m in r["missing"])]) if r["missing"] else "Nothing was left out."


def summary(r):
    n = {s: sum(b["status"] == s for b in r["bars"]) for s in ("pass", "fail", "not judged")}
    t = {s: sum(x["status"] == s for x in r.get("tests") or []) for s in ("passed", "failed", "skipped", "not run")}
    return (f"bars: {n['pass']} held, {n['fail']} not, {n['not judged']} not judged; tests: {t['passed']} passed, {t['failed']} failed, {t['skipped']} skipped, "
            f"{t['not run']} not run; {len(r['missing'])} things could not run")


def exit_code(r):
    failed = any(t["status"] in ("failed", "not run") for t in r.get("tests") or []) or any(b["status"] == "fail" for b in r["bars"])
    return 2 if failed or any(p["status"] == "not run" for p in r["parts"]) else 0
