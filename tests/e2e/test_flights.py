"""Collectives in flight in plans of GPT-2 124M: bytes gathered at once, limits of them, and the arenas that docs/memory.md states."""
import json
import re

from zmtest import *

MIB = 1 << 20
LAYER, EMBEDDINGS = 4 * (7077888 + 9984), 4 * (39383808 + 1536)  # bytes of the buckets of a layer, and of the rest, in f32


def plan(*args):
    return json.loads(run([ZMC, "plan", GPT2, "-D", "B=4", "-D", "T=64", *args, "--json"])[0])


def gathered(p, func):
    """Of each op of the function: bytes of its gathered buffers."""
    f = next(f for f in p["funcs"] if f["name"] == func)
    mine = [b for b in p["buffers"] if b["func"] == func and b["cat"] == "gathered"]
    return [sum(b["bytes"] for b in mine if b["from"] <= at <= b["to"]) for at in range(f["from"], f["from"] + f["ops"])]


def gathers(p):
    return {b["name"]: b["gathers"] for b in p["comm_buckets"]}


def test_two_layers_at_once():
    p = plan("--ranks", 4, "--zero", 3)
    for func in ("last", "eval"):
        live = gathered(p, func)
        between = [n for n in live if n < EMBEDDINGS - 4 * 1536]
        assert max(between) <= 2 * LAYER, (func, max(between))
        assert max(between) > LAYER, "none is gathered ahead"
        assert max(live) <= EMBEDDINGS + 2 * LAYER, (func, max(live))
    assert max(gathers(p).values()) == 2, gathers(p)


def test_limits():
    args = [ZMC, "plan", GPT2, "--ranks", 4, "--zero", 3]
    _, err = run([*args, "--max-gathered-bytes", "1MiB"], code=1)
    contains(err, "error[E0603]: @last holds", "gpt2.zm:30:3", "of gathered parameters at once, --max-gathered-bytes allows 1048576 bytes")
    least = int(re.search(r"the least that works is --max-gathered-bytes (\d+)", err)[1])
    _, err = run([*args, "--max-gathered-bytes", least - 1], code=1)
    contains(err, f"the least that works is --max-gathered-bytes {least}")
    tight = plan("--ranks", 4, "--zero", 3, "--max-gathered-bytes", least)
    assert max(gathered(tight, "last")) <= least
    assert max(gathers(tight).values()) == 2


def test_room_means_fewer_gathers():
    """Each layer that fits beside the embeddings and one more is gathered once."""
    p = plan("--ranks", 4, "--zero", 3, "--max-gathered-bytes", 2 * EMBEDDINGS + 5 * LAYER)
    once = [k for k, n in gathers(p).items() if n == 1]
    assert len(once) >= 4, gathers(p)
    assert max(gathered(p, "last")) <= 2 * EMBEDDINGS + 5 * LAYER
    whole = plan("--ranks", 4, "--zero", 3, "--max-gathered-bytes", "2GiB")
    same(set(gathers(whole).values()), {1}, "gathers with room for all")


def test_docs_table():
    text = read(os.path.join(ROOT, "docs", "memory.md")).decode()
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.M)
    same([int(r[0]) for r in rows], [2, 4, 8], "ranks of the table")
    for ranks, *arenas in rows:
        for zero, arena in enumerate(arenas):
            p = plan("--ranks", ranks, "--zero", zero)["per_rank"][0]
            assert abs(p["arena"] / MIB - int(arena.replace(",", ""))) <= 0.5, (ranks, zero, p["arena"] / MIB, arena)


def norm_kernels(zero, *args):
    """Bodies of the kernels that take the norm and the verdict of gradients."""
    ir, _ = run([ZMC, GPT2, *defines(SMALL), "--ranks", 2, "--zero", zero, *args, "--emit", "ir"])
    last = ir[ir.index("func @last"):]
    last = last[:last.index("\n}\n")]
    bodies = re.findall(r" = fused [^\n]*\{\n(.*?)^  \}", last, re.M | re.S)
    return sorted(re.sub(r" !\d+", "", b) for b in bodies if "is_finite" in b and "reduce_sum" in b)


def test_one_norm_at_all_stages():
    """The same kernels, so the same bits, also where gradients are 16 bits on the wire."""
    for args in ((), ("--grad-comm", "low", "--precision", "bf16"), ("--grad-dtype", "low", "--precision", "bf16", "--accumulate", 2)):
        want = norm_kernels(0, *args)
        assert want
        for zero in (1, 2, 3):
            if "--accumulate" not in args or zero == 1:  # stages 2 and 3 read accumulators
                same(norm_kernels(zero, *args), want, f"kernels of stage {zero} and stage 0, {args}")


main()
