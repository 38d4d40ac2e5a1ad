#!/usr/bin/env python3
"""Tests check_golden.py itself: a stand-in executable that answers with the expected numbers passes, and one wrong number of
any kind fails.  (A check that cannot fail proves nothing.)"""
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent

STAND_IN = '''#!%s
import json, pathlib, struct, sys
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
case, fault = json.loads(pathlib.Path(%r).read_text()), %r
e = case["expect"]
with open(args["--metrics"], "w") as f:
    for i in range(int(args["--steps"])):
        line = {"step": i, "update": i + 1, "loss": e["losses"][i], "grad_norm": e["grad_norms"][i], "lr": e["lrs"][i], "skipped": False}
        if i == fault.get("step", -1):
            v = line[fault["key"]]
            line[fault["key"]] = None if fault["factor"] is None else v * fault["factor"]
        f.write(json.dumps(line) + "\\n")
raw = bytearray((pathlib.Path(%r) / case["grads"]).read_bytes())
if "grad" in fault:
    size, = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + size])
    begin, end = header[fault["grad"]]["data_offsets"]
    for at in range(8 + size + begin, 8 + size + end, 4):
        v, = struct.unpack_from("<f", raw, at)
        struct.pack_into("<f", raw, at, v * fault["factor"])
pathlib.Path(args["--dump-grads"]).write_bytes(raw)
'''

FAULTS = [
    ({}, True),
    ({"step": 0, "key": "loss", "factor": 1 + 3e-6}, False),
    ({"step": 7, "key": "loss", "factor": 1 + 3e-6}, True),
    ({"step": 19, "key": "loss", "factor": 1 + 2e-5}, False),
    ({"step": 3, "key": "loss", "factor": None}, False),
    ({"step": 4, "key": "grad_norm", "factor": 1.0001}, False),
    ({"step": 5, "key": "lr", "factor": 1 + 1e-6}, False),
    ({"step": 6, "key": "update", "factor": 2}, False),
    ({"grad": "h.1.mlp.c_fc.weight", "factor": 1 + 3e-5}, False),
    ({"grad": "h.1.mlp.c_fc.weight", "factor": 1 + 3e-6}, True),
    ({"grad": "ln_f.bias", "factor": -1.0}, False),
]


def main():
    wrong = 0
    case = HERE / "gpt2.json"
    with tempfile.TemporaryDirectory() as tmp:
        out = pathlib.Path(tmp) / "train"
        for fault, passes in FAULTS:
            out.write_text(STAND_IN % (sys.executable, str(case), fault, str(HERE)))
            out.chmod(0o755)
            done = subprocess.run([sys.executable, HERE / "check_golden.py", "--out", out, case], capture_output=True, text=True)
            if (done.returncode == 0) != passes:
                wrong += 1
                print("fault %s: exit %d\n%s%s" % (json.dumps(fault), done.returncode, done.stdout, done.stderr))
    print("%s: %d cases, %d wrong" % ("FAIL" if wrong else "PASS", len(FAULTS), wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
