"""masked_lm and span_corruption: from a .zm file to a trained model, the same for any B, refused where they cannot be right."""
import json
import os

from zmtest import *

ENCODER = """
dim vocab = 97, width = 24, heads = 2, B = 4, T = 16
const lr = 1e-2
block linear(x: [..., n], m) -> [..., m] {
  param weight: [n, m] = normal(0.05)
  return x @ weight
}
block layer(x: [B, T, C]) -> [B, T, C] {
  let a = sdpa(split_heads(q: linear(x, C), heads), split_heads(k: linear(x, C), heads), split_heads(v: linear(x, C), heads))
  let y = normalize(x + o: linear(merge_heads(a), C), eps = 1e-5)
  return normalize(y + down: linear(gelu(up: linear(y, 2 * C)), C), eps = 1e-5)
}
model bert(tokens: int[B, T], targets: int[B, T]) {
  param emb: [vocab, width] = normal(0.1)
  param pos: [T, width] = normal(0.1)
  let x = h[1]: layer(embed(emb, tokens) + pos)
  output logits = x @ transpose(emb)
  loss cross_entropy(logits, targets, ignore = -100)
}
data { masked_lm(tokens, targets, mask = 96, rate = 0.3) }
train { optimizer adamw(lr = lr) }
"""

SPANS = """
dim vocab = 97, width = 24, B = 4, Ti = 16, Tt = 9
const lr = 1e-2
model spans(inputs: int[B, Ti], targets: int[B, Tt], decoder: int[B, Tt]) {
  param emb: [vocab, width] = normal(0.1)
  param mix: [Ti, Tt] = normal(0.1)
  let seen = transpose(transpose(embed(emb, inputs), (0, 2, 1)) @ mix, (0, 2, 1))
  loss cross_entropy((tanh(seen) + embed(emb, decoder)) @ transpose(emb), targets, ignore = -100)
}
data { span_corruption(inputs, targets, decoder, sentinel = 96, eos = 1) }
train { optimizer adamw(lr = lr) }
"""


UNBOUNDED = """
dim V = 97, B = 4, T = 16
model bag(tokens: int[B, T], targets: int[B, T]) {
  param row: [1, V] = normal(0.1)
  loss cross_entropy(reshape(float(tokens), (B, T, 1)) * row, targets, ignore = -100)
}
data { masked_lm(tokens, targets, mask = 96) }
"""


def model(name, text):
    return write(name, text.encode())


def falls(m):
    losses = [x["loss"] for x in m if x["loss"] is not None]
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    assert last < first - 0.2, (first, last)


def test_masked_lm_trains():
    exe = compile_model(model("bert.zm", ENCODER), {})
    m = train(exe, 60, data=tokens(4000, 90), name="bert.jsonl")
    falls(m)
    same(m, train(exe, 60, "--threads", 1, data=tokens(4000, 90), name="bert1.jsonl"), "metrics with one thread")


def test_masks_do_not_depend_on_the_batch():
    """Four rows at once or accumulated one by one: the same masks, so the same losses."""
    f, data = model("bert.zm", ENCODER), tokens(4000, 90)
    whole = train(compile_model(f, {}), 6, data=data)
    parts = train(compile_model(f, {"B": 1}, ("--accumulate", 4)), 6, data=data)
    for a, b in zip(whole, parts, strict=True):
        close(a["loss"], b["loss"], 1e-5, f"loss of step {a['step']}")


def test_resume():
    exe, data = compile_model(model("bert.zm", ENCODER), {}), tokens(4000, 90)
    whole = train(exe, 8, data=data)
    train(exe, 3, "--save", path("ckb"), data=data)
    same(whole[3:], train(exe, 8, "--resume", path("ckb"), data=data), "metrics after resuming")


def test_evaluation_masks_do_not_depend_on_the_seed():
    """The same weights, other training seeds: the same evaluation loss."""
    exe, data, weights, losses = compile_model(model("bert.zm", ENCODER), {}), tokens(4000, 90), path("w.safetensors"), []
    train(exe, 1, "--export", weights, data=data)
    for seed in (1, 2):
        m = path(f"eval{seed}.jsonl")
        run([exe, "--load", weights, "--eval-data", data, "--steps", 0, "--seed", seed, "--metrics", m])
        losses += [json.loads(line)["eval_loss"] for line in read(m).decode().splitlines() if "eval_loss" in line]
    assert len(losses) == 2, losses
    same(losses[0], losses[1], "evaluation losses")


def test_span_corruption_trains():
    falls(train(compile_model(model("spans.zm", SPANS), {}), 80, data=tokens(4000, 90)))


def test_dump_keeps_the_corruption():
    zir = path("spans.zir")
    run([ZMC, model("spans.zm", SPANS), "--emit", "ir", "-o", zir])
    contains(read(zir).decode(), "corruption {rate = 0.15, span = 3.0, mask = 96, eos = 1, start = 0}", "kind = span_decoder")
    out, _ = run([os.path.join(BUILD, "zm-opt"), zir])
    same(out.encode(), read(zir), "a dump and its second printing")


def refuse(text, *parts):
    _, err = run([ZMC, model("bad.zm", text), "-o", path("bad")], code=1)
    contains(err, "error[E0308]", "bad.zm:", *parts)
    assert not os.path.exists(path("bad"))


def test_refusals():
    refuse(ENCODER.replace(", ignore = -100", ""), "ignore = -100")
    refuse(ENCODER.replace("mask = 96", "mask = 97"), "mask is 97", "0..96")
    refuse(ENCODER.replace("mask = 96, ", ""), "needs mask")
    refuse(ENCODER.replace("rate = 0.3", "rate = 1.5"), "rate", "1.5")
    refuse(ENCODER.replace("rate = 0.3", "ratio = 0.3"), "no argument ratio", "rate = 0.15")
    refuse(SPANS.replace("(inputs, targets, decoder,", "(inputs, targets,"), "nothing fills input decoder")
    refuse(SPANS.replace("(inputs, targets, decoder,", "(inputs,"), "fills 2 or 3 inputs, not 1")
    refuse(SPANS.replace("Tt = 9", "Tt = 4"), "targets take 5 tokens, not 4", "make the targets 5 long")
    refuse(SPANS.replace("Ti = 16", "Ti = 2"), "no corrupted text fits", "2 tokens")
    refuse(SPANS.replace("sentinel = 96", "sentinel = 1"), "hold eos or start")
    refuse(SPANS.replace("sentinel = 96", "sentinel = true"), "must be a number")
    refuse(UNBOUNDED, "nothing says how many", "embed(table, tokens)")
    refuse(SPANS.replace("sentinel = 96", "sentinel = 200"), "sentinel is 200")
    encoder = compile_model(model("encoder.zm", ENCODER), {})
    _, err = run([encoder, "--steps", 0, "--generate", 3], code=1)
    contains(err, "--generate continues text", "causal(tokens, targets)")


main()
