#!/usr/bin/env python3
"""Compares a compiled training executable with the numbers of a golden case (README.md).  Python's standard library only.

    check_golden.py --zmc build/zmc --models models tests/golden/gpt2.json     compiles the case, then checks it
    check_golden.py --out ./train tests/golden/gpt2.json                       checks an executable compiled for the case

Options for the compiler or the executable: --zmc-arg=X, --run-arg=X (repeatable).  Ends in one line; exit status 1 when a
number is out of tolerance.
"""
import argparse
import array
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

# Derived in README.md, not tuned.
TOL_LOSS = 1e-6      # first loss, relative
TOL_GRAD = 1e-5      # ||g - r|| <= TOL_GRAD * max(||r||, GRAD_FLOOR * ||all r||)
GRAD_FLOOR = 1e-3
TOL_LOSSES = 1e-5    # every loss of the run, relative
TOL_NORM = 1e-5      # grad_norm, relative
TOL_LR = 2.0**-23    # lr: one f32 rounding


def read_safetensors(path):
    """{name: (shape, array of numbers)} of a file of f32 and f64 tensors."""
    raw = pathlib.Path(path).read_bytes()
    size, = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + size])
    out = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        numbers = array.array({"F32": "f", "F64": "d"}[info["dtype"]])
        numbers.frombytes(raw[8 + size + begin:8 + size + end])
        if sys.byteorder == "big":
            numbers.byteswap()
        if len(numbers) != math.prod(info["shape"]):
            raise ValueError("%s: %s: shape %s, but %d numbers" % (path, name, info["shape"], len(numbers)))
        out[name] = (info["shape"], numbers)
    return out


def norm(numbers):
    return math.sqrt(math.fsum(v * v for v in numbers))


class Report:
    """Collects failures and the worst use of each tolerance."""

    def __init__(self):
        self.failures, self.worst = [], {}

    def within(self, kind, where, error, allowed):
        used = error / allowed if allowed > 0 else (0.0 if error == 0 else math.inf)
        self.worst[kind] = max(self.worst.get(kind, 0.0), used)
        if not used <= 1.0:  # also when NaN
            self.failures.append("%s: %s: error %.3g, allowed %.3g" % (kind, where, error, allowed))

    def relative(self, kind, where, got, want, tolerance):
        if got is None or not math.isfinite(got):
            self.failures.append("%s: %s: got %s, want %.9g" % (kind, where, got, want))
        else:
            self.within(kind, where, abs(got - want), tolerance * abs(want))


def check_grads(report, got_path, want_path):
    got, want = read_safetensors(got_path), read_safetensors(want_path)
    for name in sorted(set(want) - set(got)):
        report.failures.append("gradient of %s is missing" % name)
    for name in sorted(set(got) - set(want)):
        report.failures.append("gradient of %s is not expected" % name)
    total = math.sqrt(math.fsum(norm(r) ** 2 for _, r in want.values()))
    for name in sorted(set(want) & set(got)):
        (got_shape, g), (shape, r) = got[name], want[name]
        if got_shape != shape:
            report.failures.append("gradient of %s: shape %s, want %s" % (name, got_shape, shape))
            continue
        error = norm(a - b for a, b in zip(g, r))
        report.within("gradient", name, error, TOL_GRAD * max(norm(r), GRAD_FLOOR * total))


def check_metrics(report, path, expect):
    steps = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines() if line.strip()]
    steps = [s for s in steps if "loss" in s]
    n = len(expect["losses"])
    if [s["step"] for s in steps] != list(range(n)):
        report.failures.append("metrics: steps %s, want 0 .. %d" % ([s["step"] for s in steps], n - 1))
        return
    for i, s in enumerate(steps):
        where = "step %d" % i
        report.relative("losses", where, s["loss"], expect["losses"][i], TOL_LOSSES)
        report.relative("grad_norm", where, s["grad_norm"], expect["grad_norms"][i], TOL_NORM)
        report.relative("lr", where, s["lr"], expect["lrs"][i], TOL_LR)
        if s["skipped"] or s["update"] != i + 1:
            report.failures.append("%s: skipped %s, update %s, want %d" % (where, s["skipped"], s["update"], i + 1))
    report.relative("first loss", "step 0", steps[0]["loss"], expect["losses"][0], TOL_LOSS)


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit("%s\nexit status %d\n%s" % (" ".join(map(str, command)), done.returncode, done.stdout))


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("case", type=pathlib.Path, help="a .json file of this directory")
    p.add_argument("--out", type=pathlib.Path, help="executable compiled for the case")
    p.add_argument("--zmc", type=pathlib.Path, help="compile the case with this zmc")
    p.add_argument("--models", type=pathlib.Path, help="directory of the .zm files",
                   default=pathlib.Path(__file__).resolve().parents[2] / "models")
    p.add_argument("--zmc-arg", action="append", default=[], help="one more argument of zmc")
    p.add_argument("--run-arg", action="append", default=[], help="one more argument of the executable")
    a = p.parse_args()
    if (a.out is None) == (a.zmc is None):
        p.error("give either --out or --zmc")
    return a


def main():
    a = parse_arguments()
    case, here = json.loads(a.case.read_text()), a.case.resolve().parent
    report = Report()
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        out = a.out and a.out.resolve()
        if a.zmc:
            out = tmp / "train"
            run([a.zmc, a.models / case["model"], "-o", out, *case["zmc"], *a.zmc_arg])
        run([out, "--data", here / case["data"], *case["run"], "--order", "sequential", "--load", here / case["load"],
             "--steps", str(len(case["expect"]["losses"])), "--metrics", tmp / "metrics.jsonl",
             "--dump-grads", tmp / "grads.safetensors", *a.run_arg])
        check_grads(report, tmp / "grads.safetensors", here / case["grads"])
        check_metrics(report, tmp / "metrics.jsonl", case["expect"])
    for f in report.failures:
        print("FAIL", f)
    used = ", ".join("%s %.3g" % (k, v) for k, v in sorted(report.worst.items()))
    print("%s %s: used of each tolerance: %s" % ("FAIL" if report.failures else "PASS", a.case.name, used))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
