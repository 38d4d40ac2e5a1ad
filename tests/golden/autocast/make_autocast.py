#!/usr/bin/env python3
"""Records the dtypes of every op of GPT-2's forward under torch.autocast(bf16): what test_autocast.py compares zmc with.

    python3 tests/golden/autocast/make_autocast.py        # writes gpt2_bf16.json next to itself (needs torch, transformers)

The model is transformers' GPT-2 with the tanh formula of gelu as one op and fused attention, as models/gpt2.zm has them.  ops: in the
order of execution, the ops that compute with floats: name, dtypes of the operands that are tensors, dtypes of the results; ops that only
move elements are left out.  casts: the shapes that autocast casts from f32 to bf16, one entry for each cast.
"""
import json
import pathlib

import torch
import torch.nn.functional as F
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

HERE = pathlib.Path(__file__).resolve().parent
# No two dimensions alike, so that a shape tells what was cast.
GPT2 = dict(vocab=19, ctx=11, layers=2, heads=2, width=14, B=2, T=5)
MOVES = {"view", "_unsafe_view", "t", "transpose", "split", "split_with_sizes", "unsqueeze", "expand", "detach", "slice", "arange", "clone", "permute",
         "select", "as_strided", "empty", "alias", "reshape"}


def dtypes_of(values):
    flat = torch.utils._pytree.tree_leaves(values)
    return [str(v.dtype).removeprefix("torch.") for v in flat if isinstance(v, torch.Tensor)]


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ops, self.casts = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "_to_copy":
            if args[0].dtype == torch.float32 and out.dtype == torch.bfloat16:
                self.casts.append(list(args[0].shape))
        elif name not in MOVES:
            taken = dtypes_of((args, kwargs))
            if any("float" in dt for dt in taken):
                self.ops.append([name, taken, dtypes_of(out)])
        return out


def main():
    torch.manual_seed(0)
    g = GPT2
    config = transformers.GPT2Config(vocab_size=g["vocab"], n_positions=g["ctx"], n_embd=g["width"], n_layer=g["layers"], n_head=g["heads"],
                                     resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, activation_function="gelu_pytorch_tanh", attn_implementation="sdpa")
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(0, g["vocab"], (g["B"], g["T"]))
    targets = torch.randint(0, g["vocab"], (g["B"], g["T"]))
    with Recorder() as r, torch.autocast("cpu", torch.bfloat16):
        hidden = model.transformer(tokens, position_ids=torch.arange(g["T"])[None], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden)
        F.cross_entropy(logits.view(-1, g["vocab"]), targets.view(-1), ignore_index=-100, reduction="none")
    out = {"torch": torch.__version__, "transformers": transformers.__version__, "defines": g, "ops": r.ops, "casts": r.casts}
    rows = ",\n".join("  " + json.dumps(op) for op in out.pop("ops"))
    head = json.dumps(out)
    (HERE / "gpt2_bf16.json").write_text(head[:-1] + ', "ops": [\n' + rows + "\n]}\n", encoding="utf-8")


main()
