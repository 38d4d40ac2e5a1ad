#!/usr/bin/env python3
"""Makes the golden files of this directory with PyTorch and transformers; see README.md.

The files are committed: the checks need only check_golden.py and Python's standard library.  This script is kept so that
anybody can see where the numbers come from and make them again:

    python3 tests/golden/make_golden.py          # writes next to itself

Weights are made in f32 (they are the input of both sides); everything that is expected is computed in f64.
"""
import json
import math
import pathlib
import sys
import tempfile

import numpy
import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent

# Genesis 1:1-10, King James Version (public domain; package bible-kjv-text).
TEXT = """\
In the beginning God created the heaven and the earth.
And the earth was without form, and void; and darkness was upon the face of the deep. And the Spirit of God
moved upon the face of the waters.
And God said, Let there be light: and there was light.
And God saw the light, that it was good: and God divided the light from the darkness.
And God called the light Day, and the darkness he called Night. And the evening and the morning were the
first day.
And God said, Let there be a firmament in the midst of the waters, and let it divide the waters from the
waters.
And God made the firmament, and divided the waters which were under the firmament from the waters which were
above the firmament: and it was so.
And God called the firmament Heaven. And the evening and the morning were the second day.
And God said, Let the waters under the heaven be gathered together unto one place, and let the dry land
appear: and it was so.
And God called the dry land Earth; and the gathering together of the waters called he Seas: and God saw that
it was good.
"""

# Odd sizes on purpose: a prime vocabulary, a head width of 24, T below ctx, samples that wrap around the file.
GPT2 = dict(vocab=127, ctx=32, layers=2, heads=2, width=48, B=4, T=24)
MLP = {"in": 13, "hidden": 37, "classes": 7, "B": 8}
MLP_SAMPLES = 61
STEPS = 20
# 20 steps run through the warm-up, the cosine and its end (p = 1).
COSINE = dict(lr=2e-3, warmup=5, total=16)


def learning_rate(u, lr, warmup, total):
    """Of the update after u updates, as zmc applies it: f64, rounded once to f32."""
    low = lr / 10
    if u < warmup:
        v = lr * (u + 1) / warmup
    else:
        p = min(1.0, (u - warmup) / max(1, total - warmup))
        v = low + (lr - low) * (1 + math.cos(math.pi * p)) / 2
    return float(numpy.float32(v))


def perturb(model, seed, scale):
    """Biases and norms away from 0 and 1, so that a mix-up of two of them shows."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(torch.randn(p.shape, generator=gen) * scale)


def train(params, loss_of, accumulate, make_optimizer, lr_of, clip):
    """20 steps; loss_of(step, micro) is the mean loss of one micro-batch, make_optimizer(decayed, others) takes two lists of
    parameters, lr_of(step) is the learning rate.  Returns the expected values, and the first step's gradients by name."""
    named = list(params.items())
    opt = make_optimizer([p for _, p in named if p.dim() >= 2], [p for _, p in named if p.dim() < 2])
    out = {"losses": [], "grad_norms": [], "lrs": []}
    first = None
    for step in range(STEPS):
        opt.zero_grad(set_to_none=True)
        total = 0.0
        for micro in range(accumulate):
            loss = loss_of(step, micro) / accumulate
            loss.backward()
            total += loss.item()
        if first is None:
            first = {n: p.grad.detach().clone() for n, p in named}
        norm = math.sqrt(sum(float(p.grad.double().pow(2).sum()) for _, p in named))
        lr = lr_of(step)
        for group in opt.param_groups:
            group["lr"] = lr
        if clip:
            for _, p in named:
                p.grad.mul_(min(1.0, clip / (norm + 1e-6)))
        opt.step()
        out["losses"].append(total)
        out["grad_norms"].append(norm)
        out["lrs"].append(lr)
    return out, first


def groups(decay, decayed, others):
    return [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def save(name, tensors):
    safetensors.torch.save_file({k: v.contiguous() for k, v in sorted(tensors.items())}, HERE / name)


def write_case(name, case):
    text = json.dumps(case, indent=1)
    (HERE / name).write_text(text + "\n")
    print(name, "losses %.6f -> %.6f" % (case["expect"]["losses"][0], case["expect"]["losses"][-1]))


def options(dims):
    """The -D options of a compile."""
    return [w for k, v in dims.items() for w in ("-D", "%s=%s" % (k, v))]


# ---- GPT-2 -----------------------------------------------------------------------------------------------------------

def gpt2_model():
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=GPT2["vocab"], n_positions=GPT2["ctx"], n_embd=GPT2["width"], n_layer=GPT2["layers"],
        n_head=GPT2["heads"], activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        layer_norm_epsilon=1e-5, initializer_range=0.08, bos_token_id=0, eos_token_id=0, attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config).float()
    perturb(model, 2, 0.1)
    return model.train()


def gpt2_params(model):
    """By zmc's parameter paths: the published names without the prefix; the tied head is wte.weight."""
    return {n.removeprefix("transformer."): p for n, p in model.named_parameters()}


def gpt2_weights(model):
    plain = {n: p.detach() for n, p in gpt2_params(model).items()}
    mask = torch.tril(torch.ones(GPT2["ctx"], GPT2["ctx"])).view(1, 1, GPT2["ctx"], GPT2["ctx"])
    hub = dict(plain)
    for i in range(GPT2["layers"]):
        hub["h.%d.attn.bias" % i] = mask.clone()
    save("gpt2_hub.safetensors", hub)
    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(tmp)
        (HERE / "gpt2_pretrained.safetensors").write_bytes((pathlib.Path(tmp) / "model.safetensors").read_bytes())


def gpt2_run(dtype, accumulate):
    """One global batch of B samples a step, in `accumulate` micro-batches."""
    model = gpt2_model().to(dtype)
    tokens = torch.tensor(list(TEXT.encode()), dtype=torch.long)
    T, rows = GPT2["T"], GPT2["B"] // accumulate
    n = (len(tokens) - 1) // T

    def loss_of(step, micro):
        first = (step * accumulate + micro) * rows
        batch = torch.stack([tokens[k % n * T:k % n * T + T + 1] for k in range(first, first + rows)])
        logits = model(batch[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.reshape(-1, GPT2["vocab"]), batch[:, 1:].reshape(-1))

    params = gpt2_params(model)
    return train(params, loss_of, accumulate,
                 lambda d, o: torch.optim.AdamW(groups(0.1, d, o), lr=1.0, betas=(0.9, 0.95), eps=1e-8, foreach=False),
                 lambda step: learning_rate(step, **COSINE), clip=1.0)


def make_gpt2():
    assert max(TEXT.encode()) < GPT2["vocab"]
    (HERE / "gpt2_tokens.u8").write_bytes(TEXT.encode())
    gpt2_weights(gpt2_model())
    base, grads = gpt2_run(torch.float64, 1)
    save("gpt2_grads.safetensors", {n: g.float() for n, g in grads.items()})
    for name, accumulate, weights in (("gpt2", 1, "gpt2_hub"), ("gpt2_pretrained", 1, "gpt2_pretrained"),
                                      ("gpt2_accumulate", 2, "gpt2_hub")):
        expect, _ = gpt2_run(torch.float64, accumulate)
        spread = max(abs(a - b) / b for a, b in zip(expect["losses"], base["losses"]))
        assert spread < 1e-12, spread  # micro-batches change nothing but rounding
        dims = dict(GPT2, B=GPT2["B"] // accumulate, dropout=0.0, **COSINE)
        write_case(name + ".json", {
            "what": "GPT-2 by transformers %s, PyTorch %s, f64" % (transformers.__version__, torch.__version__),
            "model": "gpt2.zm", "zmc": options(dims) + ["--accumulate", str(accumulate)],
            "data": "gpt2_tokens.u8", "run": ["--dtype", "u8"], "load": weights + ".safetensors",
            "grads": "gpt2_grads.safetensors", "expect": expect})
    report("gpt2", base, grads, *gpt2_run(torch.float32, 1))


def report(name, ref, ref_grads, got, got_grads):
    """How far PyTorch's own f32 run is from the f64 one: quoted in README.md beside the tolerances."""
    total = math.sqrt(sum(float(g.pow(2).sum()) for g in ref_grads.values()))
    worst = max(float((got_grads[n].double() - g).norm()) / max(float(g.norm()), 1e-3 * total) for n, g in ref_grads.items())
    losses = [abs(a - b) / abs(b) for a, b in zip(got["losses"], ref["losses"])]
    print("%s: PyTorch f32 against f64: first loss %.1e, worst gradient %.1e, worst of %d losses %.1e" %
          (name, losses[0], worst, STEPS, max(losses)))


# ---- mlp ---------------------------------------------------------------------------------------------------------------

class Mlp(torch.nn.Module):
    """models/mlp.zm: x @ weight + bias, so weights are [in, out]."""

    def __init__(self):
        super().__init__()
        gen = torch.Generator().manual_seed(3)
        sizes = {"fc1": (MLP["in"], MLP["hidden"]), "fc2": (MLP["hidden"], MLP["classes"])}
        for name, (n, m) in sizes.items():
            layer = torch.nn.Module()
            layer.weight = torch.nn.Parameter((torch.rand(n, m, generator=gen) * 2 - 1) / math.sqrt(n))
            layer.bias = torch.nn.Parameter((torch.rand(m, generator=gen) * 2 - 1) / math.sqrt(n))
            self.add_module(name, layer)

    def forward(self, x):
        h = torch.relu(x @ self.fc1.weight + self.fc1.bias)
        return h @ self.fc2.weight + self.fc2.bias


def mlp_data():
    gen = torch.Generator().manual_seed(4)
    x = torch.randn(MLP_SAMPLES, MLP["in"], generator=gen)
    y = (x @ torch.randn(MLP["in"], MLP["classes"], generator=gen)).argmax(dim=1)
    return x, y


def mlp_run(dtype, make_optimizer):
    model, (x, y) = Mlp().to(dtype), mlp_data()

    def loss_of(step, micro):
        rows = torch.arange(step * MLP["B"], (step + 1) * MLP["B"]) % MLP_SAMPLES
        return torch.nn.functional.cross_entropy(model(x[rows].to(dtype)), y[rows])

    return train(dict(model.named_parameters()), loss_of, 1, make_optimizer, lambda step: float(numpy.float32(1e-2)), clip=0)


# name, zmc's words for it (the others are mlp.zm's own: PyTorch's defaults), PyTorch's.
MLP_OPTIMIZERS = [
    ("mlp", [], lambda d, o: torch.optim.AdamW(groups(0.01, d, o), foreach=False)),
    ("mlp_adam", ["train.optimizer=adam", "train.optimizer.decay=0.05", "train.optimizer.betas=(0.8, 0.99)"],
     lambda d, o: torch.optim.Adam(groups(0.05, d, o), betas=(0.8, 0.99), foreach=False)),
    ("mlp_sgd", ["train.optimizer=sgd", "train.optimizer.momentum=0.9"],
     lambda d, o: torch.optim.SGD(groups(0.0, d, o), momentum=0.9, foreach=False)),
    ("mlp_nesterov", ["train.optimizer=sgd", "train.optimizer.momentum=0.9", "train.optimizer.nesterov=true",
                      "train.optimizer.decay=0.05"],
     lambda d, o: torch.optim.SGD(groups(0.05, d, o), momentum=0.9, nesterov=True, foreach=False)),
]


def make_mlp():
    x, y = mlp_data()
    save("mlp_data.safetensors", {"x": x, "y": y.int()})
    save("mlp_weights.safetensors", {n: p.detach() for n, p in Mlp().named_parameters()})
    for name, words, make_optimizer in MLP_OPTIMIZERS:
        expect, grads = mlp_run(torch.float64, make_optimizer)
        save("mlp_grads.safetensors", {n: g.float() for n, g in grads.items()})
        write_case(name + ".json", {
            "what": "mlp.zm, PyTorch %s, f64" % torch.__version__, "model": "mlp.zm",
            "zmc": options(dict(MLP)) + [w for d in ["train.optimizer.lr=0.01"] + words for w in ("-D", d)],
            "data": "mlp_data.safetensors", "run": [], "load": "mlp_weights.safetensors", "grads": "mlp_grads.safetensors",
            "expect": expect})
        report(name, expect, grads, *mlp_run(torch.float32, make_optimizer))


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_gpt2()
    make_mlp()
    sys.exit(0)
