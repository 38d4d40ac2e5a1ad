"""Cross entropy in chunks of rows: the same losses and gradients, fewer bytes."""
import json

from zmtest import *


def plan(d, chunk):
    out, _ = run([ZMC, "plan", GPT2, *defines(d), "--loss-chunk-bytes", chunk, "--json"])
    return json.loads(out)["per_rank"][0]


def test_same_numbers():
    """68 rows of 251 logits: in one piece, or in chunks of 16 with a rest of 4."""
    whole = train(compile_model(), 8)
    parts = train(compile_model(extra=("--loss-chunk-bytes", 12000)), 8)
    for a, b in zip(whole, parts, strict=True):
        close(a["loss"], b["loss"], 1e-6, f"loss of step {a['step']}")
        close(a["grad_norm"], b["grad_norm"], 1e-5, f"norm of step {a['step']}")


def test_evaluation():
    data = tokens()
    for chunk in (12000, 10**9):
        exe = compile_model(extra=("--loss-chunk-bytes", chunk))
        run([exe, "--data", data, "--steps", 1, "--metrics", path(f"e{chunk}"), "--eval-data", data])
    a, b = ([json.loads(l)["eval_loss"] for l in read(path(f"e{c}")).decode().splitlines() if "eval_loss" in l] for c in (12000, 10**9))
    close(a[-1], b[-1], 1e-6, "evaluation losses")


def test_fewer_bytes():
    """B * T = 512 rows of 8,191 logits are 16 MiB; at most 2 MiB of them at a time."""
    d = {"layers": 2, "heads": 2, "width": 64, "ctx": 64, "T": 64, "B": 8, "vocab": 8191}
    whole, parts = plan(d, 10**9), plan(d, 2 << 20)
    assert whole["activations"] > 16 << 20, whole
    assert parts["activations"] < whole["activations"] - (12 << 20), (whole, parts)


def test_absurd_batch_compiles_as_fast():
    """4,000,000 rows would be thousands of chunks: their number is bounded, and with it the ops."""
    d = {"layers": 1, "heads": 2, "width": 32, "ctx": 16, "T": 16, "B": 250000, "vocab": 251}
    out, _ = run([ZMC, GPT2, *defines(d), "--emit", "ir"])
    n = out.count("cross_entropy") + out.count("matmul")
    assert n < 2000, n


main()
