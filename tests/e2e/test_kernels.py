"""Each kernel is compiled once: the number of distinct kernels does not grow with the number of layers."""
import re

from zmtest import *


def distinct(**d):
    args = [ZMC, GPT2, *defines(dict(SMALL, **d)), "-o", path("x")]
    out, err = run(args)
    return int(re.search(r"\((\d+) distinct\)", out + err)[1])


def test_layers_share_kernels():
    for dropout in (0, 0.1):
        same(distinct(layers=3, dropout=dropout), distinct(layers=5, dropout=dropout), f"kernels of 3 and 5 layers, dropout {dropout},")


def test_streams_are_constants():
    """Layers that share a kernel still draw different masks: a constant argument tells them apart."""
    run([ZMC, GPT2, *defines(dict(SMALL, dropout=0.1)), "--emit", "program", "-o", path("p.txt")])
    values = re.findall(r"r constants = (.*)", read(path("p.txt")).decode())
    assert len(values) > 6 and len(set(values)) >= 7, values  # embedding; attention, projection, mlp of two layers


main()
