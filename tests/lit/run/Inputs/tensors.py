#!/usr/bin/env python3
"""Makes and shows safetensors files, with Python's standard library only.

    tensors.py write FILE NAME:DTYPE:SHAPE=NUMBERS ...     x:F32:2,3=0,1,2,3,4,5
    tensors.py show FILE                                   one line a tensor, in order of name
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


def show(path):
    with open(path, "rb") as source:
        raw = source.read()
    size, = struct.unpack_from("<Q", raw)
    for name, info in sorted(json.loads(raw[8:8 + size]).items()):
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            print(name, info["dtype"], info["shape"], *numbers_of(raw[8 + size + begin:8 + size + end], info["dtype"]))


if __name__ == "__main__":
    write(sys.argv[2], sys.argv[3:]) if sys.argv[1] == "write" else show(sys.argv[2])
