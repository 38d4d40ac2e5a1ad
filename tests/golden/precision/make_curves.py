#!/usr/bin/env python3
"""How far 16-bit training of a small GPT-2 lies from f32: PyTorch's figure, and zmc's beside it.

    python3 tests/golden/precision/make_curves.py [--zmc build/zmc]    # writes curves.json next to itself (needs torch, transformers)

The figure of a mode is the mean over SEEDS and steps of |loss - loss of the f32 run of the same program|.  autocast: f32 weights under
torch.autocast(bf16).  master: a model cast to bf16 whose gradients step f32 masters, which are cast back to it (Apex O2, DeepSpeed bf16).
Both programs start from the weights that zmc draws for the seed and read the same batches of the repository's LICENSE.
tests/e2e/test_precision.py holds zmc to 1.2 times PyTorch's figure.
"""
import argparse
import json
import math
import pathlib
import subprocess
import tempfile

import safetensors.torch
import torch
import torch.nn.functional as F
import transformers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
DEFINES = {"layers": 2, "heads": 4, "width": 64, "vocab": 256, "ctx": 64, "T": 64, "B": 8, "warmup": 20, "total": 200, "lr": 6e-4}
STEPS, SEEDS = 200, [1, 2, 3, 4, 5]
MODES = {"autocast": ["--precision", "bf16", "--amp", "autocast"], "master": ["--precision", "bf16"]}


def zmc_curve(zmc, folder, name, extra, seed):
    exe, metrics = folder / name, folder / "metrics.jsonl"
    if not exe.exists():
        args = [w for k, v in DEFINES.items() for w in ("-D", f"{k}={v}")]
        subprocess.run([zmc, ROOT / "models/gpt2.zm", *args, *extra, "-o", exe], check=True, capture_output=True)
    data = ["--data", ROOT / "LICENSE", "--dtype", "u8", "--order", "sequential", "--seed", str(seed)]
    if name == "f32":
        subprocess.run([exe, *data, "--steps", "0", "--export", folder / f"{seed}.safetensors"], check=True, capture_output=True)
    subprocess.run([exe, *data, "--steps", str(STEPS), "--metrics", metrics], check=True, capture_output=True)
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]


def batches():
    text, B, T = (ROOT / "LICENSE").read_bytes(), DEFINES["B"], DEFINES["T"]
    n = (len(text) - 1) // T
    for s in range(STEPS):
        rows = [torch.tensor(list(text[(k % n) * T:(k % n) * T + T + 1])) for k in range(s * B, s * B + B)]
        yield torch.stack(rows)


def learning_rate(u):
    d = DEFINES
    if u < d["warmup"]:
        return d["lr"] * (u + 1) / d["warmup"]
    p = min(1.0, (u - d["warmup"]) / max(1, d["total"] - d["warmup"]))
    return d["lr"] / 10 + 0.9 * d["lr"] * (1 + math.cos(math.pi * p)) / 2


def model_of(weights):
    d = DEFINES
    config = transformers.GPT2Config(vocab_size=d["vocab"], n_positions=d["ctx"], n_embd=d["width"], n_layer=d["layers"], n_head=d["heads"],
                                     resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, activation_function="gelu_pytorch_tanh", attn_implementation="sdpa",
                                     bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config)
    missing = model.transformer.load_state_dict(safetensors.torch.load_file(weights), strict=False)
    assert not missing.unexpected_keys and not missing.missing_keys, missing
    return model


def torch_curve(weights, mode):
    model = model_of(weights)
    masters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    own = list(model.parameters())
    if mode == "master":
        model.bfloat16()
        stepped = masters
    else:
        stepped = own
    groups = [{"params": [p for p in stepped if p.dim() >= 2], "weight_decay": 0.1}, {"params": [p for p in stepped if p.dim() < 2], "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=1, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step, rows in enumerate(batches()):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            logits = model(rows[:, :-1]).logits
            loss = F.cross_entropy(logits.float().view(-1, DEFINES["vocab"]), rows[:, 1:].reshape(-1))
        model.zero_grad()
        loss.backward()
        if mode == "master":
            for master, p in zip(masters, own):
                master.grad = p.grad.float()
        torch.nn.utils.clip_grad_norm_(stepped, 1.0)
        optimizer.step()
        if mode == "master":
            with torch.no_grad():
                for master, p in zip(masters, own):
                    p.copy_(master)
        losses.append(loss.item())
    return losses


def distance(a, b):
    return sum(abs(x - y) for x, y in zip(a, b)) / STEPS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--zmc", default=ROOT / "build/zmc", type=pathlib.Path)
    zmc = parser.parse_args().zmc.resolve()
    torch.set_num_threads(1)
    figures = {mode: {"torch": [], "zmc": []} for mode in MODES}
    apart = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for seed in SEEDS:
            own = zmc_curve(zmc, folder, "f32", [], seed)
            weights = folder / f"{seed}.safetensors"
            base = torch_curve(weights, "f32")
            apart.append(distance(own, base))
            for mode, extra in MODES.items():
                figures[mode]["torch"].append(distance(torch_curve(weights, mode), base))
                figures[mode]["zmc"].append(distance(zmc_curve(zmc, folder, mode, extra, seed), own))
    print("f32: zmc and PyTorch are apart by", " ".join(f"{v:.2g}" for v in apart))
    for mode, f in figures.items():
        mean = {k: sum(v) / len(v) for k, v in f.items()}
        print(f"{mode}: PyTorch {mean['torch']:.3g}, zmc {mean['zmc']:.3g}, ratio {mean['zmc'] / mean['torch']:.2f}   by seed:",
              ", ".join(f"{t:.2g} {z:.2g}" for t, z in zip(f["torch"], f["zmc"])))
    out = {"torch": torch.__version__, "defines": DEFINES, "steps": STEPS, "seeds": SEEDS,
           "figure": {mode: sum(f["torch"]) / len(SEEDS) for mode, f in figures.items()}}
    (HERE / "curves.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


main()
