"""--recompute: the same training in less memory, the arena that was asked for, a plan that says what it cost."""
import json
import re

from zmtest import *

# Activations larger than states, so that what is kept shows in the arena.
DEEP = {"layers": 5, "heads": 3, "width": 39, "ctx": 67, "T": 67, "B": 16, "vocab": 251, "warmup": 3, "total": 12, "lr": 2e-3}


def plan(*args, d=None, code=0):
    out, err = run([ZMC, "plan", GPT2, *defines(d or DEEP), *args, "--json"], code)
    return err if code else json.loads(out)


def arena(p):
    return p["per_rank"][0]["arena"]


def test_same_training():
    """The same sums in other kernels: losses agree to f32 rounding, which a dozen updates amplify."""
    for extra in ([], ["--accumulate", 2, "-D", "dropout=0.1"]):
        want = train(compile_model(d=DEEP, extra=extra), 6)
        for mode in ("layer", "auto"):
            exe = compile_model(d=DEEP, extra=[*extra, "--recompute", mode])
            p = plan(*extra, "--recompute", mode)
            for a, b in zip(want, train(exe, 6), strict=True):
                close(a["loss"], b["loss"], 1e-6, "losses")
                close(a["grad_norm"], b["grad_norm"], 1e-5, "gradient norms")
                same(b["arena_bytes"], arena(p), "arena of plan and run")
            same(train(exe, 2), train(exe, 2, "--poison"), "runs with and without --poison")


def test_less_memory():
    none, auto, layer = (plan("--recompute", m) for m in ("none", "auto", "layer"))
    assert arena(layer) < arena(auto) < arena(none)
    assert none["flops"] < auto["flops"] < layer["flops"] < none["flops"] * 4 / 3 + 1
    assert "recompute" not in none


def test_memory_is_kept():
    """Between the two ends auto takes as few steps as fit; below them it refuses and names the smallest budget."""
    none, layer = arena(plan()), arena(plan("--recompute", "layer"))
    last = 0
    for share in (100, 80, 60, 40, 20, 0):
        budget = layer + (none - layer) * share // 100
        p = plan("--recompute", "auto", "--memory", budget)
        assert arena(p) <= budget
        steps = p["recompute"]["steps"]
        assert steps >= last
        if steps:
            tighter = plan("--recompute", "auto", "--memory", arena(p))
            same(tighter["recompute"]["steps"], steps, "steps for the same arena")
        last = steps
    err = plan("--recompute", "auto", "--memory", 1000, code=3)
    least = int(re.search(r"smallest budget that fits is (\d+) bytes", err)[1])
    same(arena(plan("--recompute", "auto", "--memory", least)), least, "arena and smallest budget")
    contains(plan("--memory", 1000, code=3), "--recompute auto")


def test_plan_explains():
    none, p = plan(), plan("--recompute", "layer")
    r = p["recompute"]
    same(r["arena_without"], arena(none), "arena without recomputation")
    same(r["steps"], r["of"], "steps")
    same(r["flops"], p["flops"] - none["flops"], "flops of the report and of the plans")
    close(sum(v["flops"] for v in r["values"]), r["flops"], 1e-9, "flops by line and in all")
    live = [q["per_rank"][0]["peak_live"] - q["per_rank"][0]["padding"] for q in (none, p)]
    same(sum(v["saved"] for v in r["values"]), live[0] - live[1], "bytes saved by line and in all")
    out, _ = run([ZMC, "plan", GPT2, *defines(DEEP), "--recompute", "layer"])
    contains(out, f"recompute: {r['of']} of {r['of']} steps", "saved at the peak")


def test_without_layers():
    """A model without repeats has nothing to compute again."""
    for mode in ("layer", "auto"):
        out, _ = run([ZMC, "plan", os.path.join(MODELS, "mlp.zm"), "--recompute", mode, "--json"])
        same(json.loads(out)["recompute"]["of"], 0, "steps")


def test_bad_mode():
    _, err = run([ZMC, "plan", GPT2, "--recompute", "some"], 1)
    contains(err, "--recompute takes none|layer|auto")


main()
