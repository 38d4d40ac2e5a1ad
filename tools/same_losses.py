#!/usr/bin/env python3
"""same_losses.py ONE.jsonl MANY.jsonl -- the losses of two runs of one training beside each other, on one rank and on many.

Sums are taken in another order on another number of ranks, so losses agree to 1e-5 relative up to step 10 and to 1e-4 up to
step 50; a difference beyond that is exit code 1.
"""
import json
import sys

BOUNDS = ((10, 1e-5), (50, 1e-4))  # up to step, relative


def read_losses(path):
    with open(path, encoding="utf-8") as lines:
        return {s["step"]: s["loss"] for s in map(json.loads, lines) if "loss" in s}


def compare(one, many):
    """(step, loss, loss, relative difference, bound) of each step of both."""
    out = []
    for step in sorted(set(one) & set(many)):
        bound = next((b for last, b in BOUNDS if step <= last), None)
        if bound is not None:
            out.append((step, one[step], many[step], abs(one[step] - many[step]) / abs(one[step]), bound))
    return out


def main():
    one, many = (read_losses(p) for p in sys.argv[1:3])
    rows = compare(one, many)
    if len(rows) < len(many) or not rows:
        sys.exit(f"same_losses: only {len(rows)} of {len(many)} steps can be compared")
    print(f"{'step':>6} {'one rank':>12} {'many ranks':>12} {'difference':>11}")
    for step, a, b, d, _ in rows:
        if step % 10 == 0 or step == rows[-1][0]:
            print(f"{step:6} {a:12.7f} {b:12.7f} {d:11.1e}")
    wrong = [r for r in rows if not r[3] <= r[4]]
    for step, a, b, d, bound in wrong:
        print(f"step {step}: {a!r} and {b!r} differ by {d:.1e}, more than {bound:.0e}")
    print(f"largest difference of {len(rows)} steps: {max(r[3] for r in rows):.1e}: {'DIFFERENT' if wrong else 'the same losses'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
