#!/usr/bin/env python3
"""Casts of --amp autocast against PyTorch's: every op of GPT-2's forward as torch.autocast ran it (gpt2_bf16.json, made by
make_autocast.py), and the classes of ops.def against PyTorch's list for CUDA.

On GPT-2's forward the lists for CPU and CUDA agree: CUDA's forces layer_norm to f32, which has f32 operands here on the CPU, too.
Only the standard library; ZMC_BUILD: the build (default build/).
"""
import json
import math
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = pathlib.Path(os.environ.get("ZMC_BUILD", ROOT / "build"))
DTYPE = {"bf16": "bfloat16", "f32": "float32", "i32": "int64", "i1": "bool"}
OP = re.compile(r"^  (?:(%[^=]*) = )?(\w+) ?(.*?)(?: \{.*\})? : (.*?) !\d+$")


class Op:
    def __init__(self, code, operands, types, wide):
        self.code, self.operands, self.types, self.wide = code, operands, types, wide


def forward():
    """Ops of @train after amp, canon and cse: [(results, Op)], and the op and type of each value."""
    g = json.loads((HERE / "gpt2_bf16.json").read_text(encoding="utf-8"))
    args = [w for k, v in g["defines"].items() for w in ("-D", f"{k}={v}")]
    done = subprocess.run([BUILD / "zmc", ROOT / "models/gpt2.zm", *args, "--precision", "bf16", "--amp", "autocast", "--print-ir-after=cse",
                           "--emit", "ir", "-o", os.devnull], capture_output=True, text=True, check=True)
    text = done.stderr.split("func @train", 1)[1].split("\n}", 1)[0]
    ops, defs, types = [], {}, dict(re.findall(r"(%\w+): (\w+\[[\d,]*\])", text.split("\n", 1)[0]))
    for line in text.splitlines():
        m = OP.match(line)
        if not m:
            continue
        results = [r.strip() for r in (m[1] or "").split(",")]
        op = Op(m[2], re.findall(r"%[\w.]+", m[3]), re.findall(r"\w+\[[\d,]*\]", m[4]), "wide = true" in line)
        ops.append(op)
        for r, t in zip(results, op.types):
            defs[r], types[r] = op, t
    return g, ops, defs, types


def dtype(t):
    return DTYPE[t.split("[")[0]]


def shape(t):
    """As a matrix of its rows: PyTorch flattens what it multiplies by a matrix."""
    dims = [int(d) for d in re.findall(r"\d+", t.split("[")[1])]
    return dims if len(dims) < 2 else [math.prod(dims[:-1]), dims[-1]]


class Reader:
    """Reads our ops as PyTorch's."""

    def __init__(self, ops, defs, types):
        self.ops, self.defs, self.types = ops, defs, types

    def behind(self, v, codes):
        """v, behind ops of these codes."""
        while v in self.defs and self.defs[v].code in codes:
            v = self.defs[v].operands[0]
        return v

    def code(self, v):
        return self.defs[v].code if v in self.defs else "input"

    def given(self, v):
        """The dtype before a cast up, which PyTorch's ops do inside."""
        op = self.defs.get(v)
        up = op and op.code == "cast" and dtype(op.types[0]) == "float32" and dtype(self.types[op.operands[0]]) == "bfloat16"
        return dtype(self.types[op.operands[0] if up else v])

    def is_rounding(self, op):
        """The cast that ends product + bias."""
        return op.code == "cast" and self.code(op.operands[0]) == "add" and self.wide_product(self.defs[op.operands[0]])

    def wide_product(self, op):
        return next((self.defs[v] for v in op.operands if v in self.defs and self.defs[v].wide), None)

    def row(self, op):
        """(name, dtypes of operands, dtype of the result) of an op that is one of PyTorch's or ends one; else None."""
        if self.is_rounding(op):
            add = self.defs[op.operands[0]]
            product = self.wide_product(add)
            bias = next(v for v in add.operands if self.defs[v] is not product)
            taken = [self.given(self.behind(bias, ("broadcast", "reshape")))] + [dtype(self.types[v]) for v in product.operands]
            return "addmm", taken, dtype(op.types[0])
        if op.code == "add":
            if self.wide_product(op):
                return None
            scaled = [v for v in op.operands if self.code(v) == "mul" and any(self.code(w) == "normalize" for w in self.defs[v].operands)]
            if not scaled:
                return "add", sorted(self.given(v) for v in op.operands), dtype(op.types[0])
            mul = self.defs[scaled[0]]
            norm = next(v for v in mul.operands if self.code(v) == "normalize")
            weight = next(v for v in mul.operands if v != norm)
            bias = next(v for v in op.operands if v != scaled[0])
            return "native_layer_norm", [dtype(self.types[v]) for v in (self.defs[norm].operands[0], weight, bias)], dtype(op.types[0])
        names = {"embed": "embedding", "sdpa": "_scaled_dot_product_flash_attention_for_cpu", "gelu_tanh": "gelu", "cross_entropy": "cross_entropy"}
        if op.code == "matmul" and not op.wide:
            return "mm", [dtype(self.types[v]) for v in op.operands], dtype(op.types[0])
        if op.code in names:
            return names[op.code], [dtype(self.types[v]) for v in op.operands], dtype(op.types[0])
        return None


def expected(g):
    """PyTorch's rows in the form of Reader.row: its second lookup, of positions 0, 1, ..., is a slice of the table in models/gpt2.zm;
    log_softmax and nll_loss are our cross_entropy."""
    rows = [(name, sorted(taken) if name == "add" else taken, out[0]) for name, taken, out in g["ops"]]
    lookups = [i for i, r in enumerate(rows) if r[0] == "embedding"]
    del rows[lookups[1]]
    softmax, loss = rows[-2:]
    assert (softmax[0], loss[0]) == ("_log_softmax", "nll_loss_forward")
    return rows[:-2] + [("cross_entropy", softmax[1] + ["int64"], loss[2])]


def test_gpt2_forward():
    g, ops, defs, types = forward()
    reader = Reader(ops, defs, types)
    got = [r for r in map(reader.row, ops) if r]
    want = expected(g)
    for i, (a, b) in enumerate(zip(got, want)):
        assert a == b, f"op {i}: {a}, PyTorch has {b}"
    assert len(got) == len(want), f"{len(got)} ops, PyTorch has {len(want)}"
    assert len(want) == 2 + 2 * 10 + 3, len(want)


def test_gpt2_casts():
    g, ops, defs, types = forward()
    reader = Reader(ops, defs, types)
    got = sorted(shape(op.types[0]) for op in ops
                 if op.code == "cast" and dtype(op.types[0]) == "bfloat16" and not reader.is_rounding(op))
    want = sorted(s if len(s) < 2 else [math.prod(s[:-1]), s[-1]] for s in g["casts"])
    assert got == want, f"{got}, PyTorch has {want}"


# CUDA's list (torch/include/ATen/autocast_mode.h, PyTorch 2.15), by our ops; what it does not list runs in the dtype of its operands,
# promoted: promote with two operands, follow with one.
CUDA = {
    "low": ["matmul", "sdpa"],  # addmm, bmm, linear, scaled_dot_product_attention, ...
    # exp, log, pow, rsqrt; layer_norm, rms_norm; nll_loss, mse_loss; softmax, log_softmax and sum give f32
    "f32": ["exp", "log", "pow", "rsqrt", "normalize", "rms_normalize", "cross_entropy", "squared_error", "softmax", "log_softmax", "reduce_sum"],
    "promote": ["add", "sub", "mul", "div", "min", "max", "select", "eq", "lt", "concat", "scatter_add"],  # scatter_add is listed
    "follow": ["abs", "cos", "erf", "gelu", "gelu_tanh", "neg", "relu", "sigmoid", "silu", "sin", "sqrt", "tanh", "embed", "drop", "reduce_max",
               "reshape", "transpose", "slice", "broadcast"],
}


def test_classes():
    page = subprocess.run([BUILD / "zm-opt", "--print-ops-md"], capture_output=True, text=True, check=True).stdout
    have = dict(re.findall(r"^### (\w+)\n.*?precision class (\w+)", page, re.M | re.S))
    for name, ops in CUDA.items():
        for op in ops:
            assert have[op] == name, f"{op} is of class {have[op]}, CUDA's list says {name}"


def main():
    failed = 0
    for name, test in sorted(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
        except AssertionError as e:
            failed += 1
            print(f"{name}: {e}")
    print("FAIL" if failed else "PASS")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
