"""--recompute: the same training in less memory, the arena that was asked for, a plan that says what it cost."""
import json
import os
import re

from zmtest import *

# Activations larger than states, so that what is kept shows in the arena.
DEEP = {"layers": 5, "heads": 3, "width": 39, "ctx": 67, "T": 67, "B": 16, "vocab": 251, "warmup": 3, "total": 12, "lr": 2e-3}


BLOCKS = """
dim B = 3, T = 7, S = 5, C = 12, heads = 2, V = 11
block lin(x: [..., n], m) -> [..., m] {
  param w: [n, m] = normal(0.2)
  return x @ w
}
block att(x: [B, M, C], y: [B, N, C], c) -> [B, M, C] {
  param bias: [1, heads, 1, 1] = zeros at "shared.bias"
  let k, v = split(kv: lin(y, 2 * C), 2)
  let a = sdpa(split_heads(q: lin(x, C), heads), split_heads(k, heads), split_heads(v, heads), causal = c,
               bias = broadcast(bias, [1, heads, M, N]), drop = 0.1)
  return drop(o: lin(merge_heads(a), C), 0.1)
}
block mlp(x: [..., C]) -> [..., C] {
  return x + drop(b: lin(tanh(a: lin(normalize(x), 4 * C)), C), 0.1)
}
train { optimizer adamw(lr = 1e-2) }
"""

# Two repeats, the second of which reads the first one's result in every layer; a repeat of repeats, and blocks used again;
# layers that end in attention, with a mask that every layer broadcasts; layers inside of one instance of a repeat.
PROGRAMS = {
    "encoder_decoder": """
block enc(x: [B, S, C]) -> [B, S, C] {
  return m: mlp(x + at: att(normalize(x), normalize(x), false))
}
block dec(x: [B, T, C], e: [B, S, C]) -> [B, T, C] {
  let y = x + at: att(normalize(x), normalize(x), true)
  return m: mlp(y + cr: att(normalize(y), e, false))
}
model m(src: int[B, S], tokens: int[B, T], targets: int[B, T]) {
  param emb: [V, C] = normal(0.3)
  let e = normalize(encoder[3]: enc(drop(embed(emb, src), 0.1)))
  output logits = normalize(decoder[3]: dec(embed(emb, tokens), e)) @ transpose(emb)
  loss cross_entropy(logits, targets)
}
""",
    "nested_and_shared": """
block stack(x: [..., n]) -> [..., n] {
  let y = s[3]: mlp(x)
  return y * sigmoid(t: lin(y, n))
}
model m(tokens: int[B, T], targets: int[B, T]) {
  param emb: [V, C] = normal(0.3)
  let a = h[2]: stack(embed(emb, tokens))
  let b = h.1.t(tanh(a), C) + h.0.s.2(a)
  output logits = normalize(g[2]: stack(b) + a) @ transpose(emb)
  loss cross_entropy(logits, targets)
}
""",
    "tower": """
block tower(x: [..., n]) -> [..., n] {
  return layer[8]: mlp(x)
}
model m(tokens: int[B, T], targets: int[B, T]) {
  param emb: [V, C] = normal(0.3)
  output logits = normalize(towers[1]: tower(embed(emb, tokens))) @ transpose(emb)
  loss cross_entropy(logits, targets)
}
""",
    "attention_ends_layers": """
block layer(x: [B, heads, T, D], m: [B, 1, 1, T]) -> [B, heads, T, D] {
  let s = x @ transpose(k: lin(x, D)) + broadcast(m, [B, heads, T, T])
  return sdpa(q: lin(softmax(s) @ x, D), x, v: lin(x, D), causal = true)
}
model m(tokens: int[B, T], targets: int[B, T]) {
  param emb: [V, C] = normal(0.3)
  let m = reshape(where(tokens > 3, 0.0, -10.0), [B, 1, 1, T])
  let y = h[4]: layer(split_heads(embed(emb, tokens), heads), m)
  output logits = normalize(merge_heads(y)) @ transpose(emb)
  loss cross_entropy(logits, targets)
}
""",
}


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


def test_other_models():
    sizes = {"src": 5, "tokens": 7, "targets": 7}
    data = write_safetensors("rows.safetensors", {k: ("I32", [40, n], b"".join((i * i * 7 % 11).to_bytes(4, "little") for i in range(40 * n)))
                                                  for k, n in sizes.items()})
    for name, text in PROGRAMS.items():
        model = write(f"{name}.zm", (BLOCKS + text).encode())
        for extra in ([], ["--accumulate", 3]):
            want, arenas = train(compile_model(model, {}, extra), 5, data=data), []
            for how in ([], ["--recompute", "layer"], ["--recompute", "auto"]):
                out, _ = run([ZMC, "plan", model, *extra, *how, "--json"])
                arenas.append(arena(json.loads(out)))
                for a, b in zip(want, train(compile_model(model, {}, [*extra, *how]), 5, "--poison", data=data), strict=True):
                    close(a["loss"], b["loss"], 1e-6, f"losses of {name}")
            assert arenas[1] < arenas[0] * 0.9 and arenas[2] <= arenas[0], (name, arenas)


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
    persistent = sum(b["bytes"] for b in plan()["buffers"] if not b["func"])
    err = plan("--recompute", "auto", "--memory", 1000, code=3)
    least = int(re.search(r"smallest budget that fits is (\d+) bytes", err)[1])
    same(arena(plan("--recompute", "auto", "--memory", least)), least, "arena and smallest budget")
    assert least <= min(layer, arena(plan("--recompute", "auto")))
    contains(plan("--memory", persistent, code=3), "--recompute auto")


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
    assert "-0.00" not in out and " \n" not in out, out
    out, _ = run([ZMC, "plan", os.path.join(os.path.dirname(GPT2), "mlp.zm"), "--recompute", "layer"])
    contains(out, "recompute: nothing to compute again")


def test_without_layers():
    """A model without repeats has nothing to compute again."""
    for mode in ("layer", "auto"):
        out, _ = run([ZMC, "plan", os.path.join(MODELS, "mlp.zm"), "--recompute", mode, "--json"])
        same(json.loads(out)["recompute"]["of"], 0, "steps")
    _, err = run([ZMC, "plan", os.path.join(MODELS, "mlp.zm"), "--recompute", "auto", "--memory", 3000000], 3)
    contains(err, "--accumulate needs less")
    assert "--recompute auto keeps less" not in err, err


def test_planned_already():
    """A dump has its plan: an option that would change it is refused, not ignored."""
    zir = path("planned.zir")
    run([ZMC, GPT2, *defines(SMALL), "--emit", "ir", "-o", zir])
    for option in (["--recompute", "auto"], ["-D", "B=2"], ["--precision", "bf16"], ["--accumulate", 2]):
        _, err = run([ZMC, "plan", zir, *option], 1)
        contains(err, f"{option[0]} has no effect on", "when the model (.zm) is compiled")
    run([ZMC, "plan", zir, "--memory", "1GiB", "--json"])


def test_bad_mode():
    _, err = run([ZMC, "plan", GPT2, "--recompute", "some"], 1)
    contains(err, "--recompute takes none|layer|auto")


main()
