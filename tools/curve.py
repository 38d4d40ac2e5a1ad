#!/usr/bin/env python3
"""curve.py METRICS.jsonl -- the loss of a run as a curve of text."""
import json
import sys

WIDTH, HEIGHT = 64, 14


def read_losses(path):
    with open(path, encoding="utf-8") as lines:
        steps = [json.loads(line) for line in lines]
    return [s["loss"] for s in steps if s.get("loss") is not None]


def column_means(values, n):
    """n means over consecutive parts of values."""
    n = min(n, len(values))
    bounds = [len(values) * i // n for i in range(n + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in zip(bounds, bounds[1:])]


def draw(values):
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    rows = [round((high - v) / span * (HEIGHT - 1)) for v in values]
    for r in range(HEIGHT):
        label = f"{high - span * r / (HEIGHT - 1):8.3f} |"
        print(label + "".join("*" if row == r else " " for row in rows))
    print(" " * 9 + "+" + "-" * len(values))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    losses = read_losses(sys.argv[1])
    if not losses:
        sys.exit(f"curve.py: {sys.argv[1]} holds no losses")
    print(f"loss over {len(losses)} steps: {losses[0]:.3f} -> {losses[-1]:.3f}")
    draw(column_means(losses, WIDTH))


if __name__ == "__main__":
    main()
