"""Few launches: GPT-2 at its own size has at most 22 kernels a layer, forward and backward together, and at most 3 a bucket behind the
last gradient.  A test that fails lists them.

A layer's kernels are those of one layer more: of 4 layers without those of 3, every parameter in as few buckets as there can be.
"""
import collections
import re

from zmtest import *

MOST_OF_LAYER, MOST_OF_BUCKET = 22, 3
WHOLE = ["--bucket-bytes", 1 << 40]
PRECISIONS = {
    "fp32": [],
    "bf16": ["--precision", "bf16"],
    "fp16": ["--precision", "fp16", "--loss-scale", "dynamic"],
}


def commands(args):
    """Commands of a step, in order: ["kernel 3 matmul+add", "start 0 all_reduce of", ...]."""
    run([ZMC, GPT2, *args, "--emit", "program", "-o", path("p.txt")])
    text = read(path("p.txt")).decode()
    last = text.split("\nfunction last:")[1].split("\nfunction ")[0]
    found = [c.split("  ")[0] for c in re.findall(r"^    \d+: (.*)", last, re.M)]
    assert len(found) > 50, found
    return found


def labels(found):
    return collections.Counter(c.split(" ", 2)[2] for c in found if c.startswith("kernel "))


def show(counts):
    return "".join(f"\n    {n} {label}" for label, n in counts.items() if n)


def check_layer(args, most=MOST_OF_LAYER):
    kernels = labels(commands(["-D", "layers=4", *WHOLE, *args]))
    kernels.subtract(labels(commands(["-D", "layers=3", *WHOLE, *args])))
    n = sum(kernels.values())
    assert 0 < n <= most, f"{n} kernels of one layer, forward and backward, more than {most}; {' '.join(map(str, args))}:{show(kernels)}"


LAUNCHES = ("kernel ", "copy ", "zero ")
UPDATES = re.compile("all_finite|count_nonfinite|sum_squares|sqrt|is_finite|adam_update|^copy|^zero")


def check_update(args, is_beside=False):
    """is_beside: buckets are reduced beside the backward, whose kernels stand between those of the update: these are known by their ops."""
    found = [c for c in commands(args) if c.startswith(LAUNCHES)]
    rest = found[next(i for i, c in enumerate(found) if UPDATES.search(c) and c.startswith("kernel ")):]
    if is_beside:
        rest = [c for c in rest if UPDATES.search(c)]
    buckets = sum("adam_update" in c for c in rest)
    assert buckets >= 2 and len(rest) <= MOST_OF_BUCKET * buckets, \
        f"{len(rest)} launches update {buckets} buckets; {' '.join(map(str, args))}:\n    " + "\n    ".join(rest)


def test_layer():
    for precision in PRECISIONS.values():
        for dropout in (0, 0.1):
            for target in ("cpu", "cuda:sm_80"):
                check_layer([*precision, "-D", f"dropout={dropout}", "--target", target])


def test_layer_autocast():
    """And a cast of each of the four weights, once a step."""
    for dropout in (0, 0.1):
        check_layer(["--precision", "bf16", "--amp", "autocast", "-D", f"dropout={dropout}"], MOST_OF_LAYER + 4)


def test_update():
    for precision in PRECISIONS.values():
        for target in ("cpu", "cuda:sm_80"):
            check_update([*precision, "--target", target])


def test_update_of_ranks():
    for ranks in (2, 4):
        for stage in (0, 1, 2, 3):
            for precision in ("fp32", "bf16"):
                check_update(["--ranks", ranks, "--zero", stage, *PRECISIONS[precision]], is_beside=True)


main()
