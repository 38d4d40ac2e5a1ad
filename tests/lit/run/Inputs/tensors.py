#!/usr/bin/env python3
"""Makes and shows safetensors files, with Python's standard library only.

    tensors.py write FILE NAME:DTYPE:SHAPE=NUMBERS ...     x:F32:2,3=0,1,2,3,4,5
    tensors.py show FILE                                   one line a tensor, in order of name
    tensors.py close FILE FILE TOL                         same tensors; numbers equal to TOL of the tensor's largest
"""
import json
import struct
import sys

CODES = {"BOOL": "?", "U8": "B", "I32": "i", "I64": "q", "F16": "e", "F32": "f", "F64": "d"}


def write(path, specs):
    header, data = {}, b""
    for spec in specs:
        left, numbers = spec.split("=")
        name, dtype, shape = left.rsplit(":", 2)
        kind = float if dtype[0] == "F" else int
        values = [kind(v) for v in numbers.split(",") if v]
        raw = struct.pack(f"<{len(values)}{CODES[dtype]}", *values)
        header[name] = {"dtype": dtype, "shape": [int(d) for d in shape.split(",") if d],
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)


def numbers_of(raw, dtype):
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + raw[i:i + 2])[0] for i in range(0, len(raw), 2)]
    code = CODES[dtype]
    return list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))


def read(path):
    with open(path, "rb") as source:
        raw = source.read()
    size, = struct.unpack_from("<Q", raw)
    out = {}
    for name, info in sorted(json.loads(raw[8:8 + size]).items()):
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            out[name] = info["dtype"], info["shape"], numbers_of(raw[8 + size + begin:8 + size + end], info["dtype"])
    return out


def show(path):
    for name, (dtype, shape, numbers) in read(path).items():
        print(name, dtype, shape, *numbers)


def close(left, right, tol):
    """Exit status 1 when anything differs; says what."""
    x, y = read(left), read(right)
    if {n: t[:2] for n, t in x.items()} != {n: t[:2] for n, t in y.items()}:
        sys.exit(f"tensors differ: {sorted(x)} and {sorted(y)}")
    for name, (_, _, numbers) in x.items():
        largest = max(map(abs, numbers))
        for i, (a, b) in enumerate(zip(numbers, y[name][2])):
            if not (a == b or abs(a - b) <= float(tol) * largest):
                sys.exit(f"{name}[{i}]: {a} and {b}")


if __name__ == "__main__":
    {"write": lambda path, *specs: write(path, specs), "show": show, "close": close}[sys.argv[1]](*sys.argv[2:])
