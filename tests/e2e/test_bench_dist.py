"""tools/bench --dist on a tiny model: every stage and every peer of PyTorch runs on 2 ranks, and the ratios follow from their
times.  Nothing about their size.  Skipped where no Python with torch, or no mpirun, is at hand."""
import json
import os
import shutil
import statistics
import sys

import zmtest as z
from test_bench import torch_python

PEERS = ("DDP", "ZeroRedundancyOpt.", "FSDP2")
STAGES = tuple(f"zmc stage {s}" for s in range(4))


def test_tiny():
    out = z.path("dist.json")
    text, _ = z.run([sys.executable, os.path.join(z.ROOT, "tools", "bench"), "--dist", "--case", "tiny", "--rounds", 1, "--steps", 2,
                     "--no-deepspeed", "--build", z.BUILD, "--python", torch_python(), "--json", out])
    with open(out, encoding="utf-8") as f:
        r = json.load(f)["dist"]
    for name in STAGES + PEERS:
        p = r["programs"][name]
        assert len(p["times_s"]) == 2 and 0 < p["min_s"] <= p["median_s"] and p["peak_bytes"] > 1 << 20, p
        assert len(p["losses"]) == 4 and all(3 < loss < 8 for loss in p["losses"]), p  # ln 256 = 5.5 at first
    assert r["stages_equal"], {n: r["programs"][n]["losses"] for n in STAGES}
    assert r["programs"]["DeepSpeed ZeRO-1"] == {"reason": "left out by --no-deepspeed"}, r["programs"]
    for ratio in r["ratios"]:
        if "DeepSpeed" in ratio["peer"]:
            assert "medians" not in ratio, ratio
            continue
        mine, theirs = r["programs"][ratio["mine"]]["times_s"], r["programs"][ratio["peer"]]["times_s"]
        z.close(ratio["medians"], statistics.median(mine) / statistics.median(theirs), 1e-9, "ratio of medians")
        z.close(ratio["minima"], min(mine) / min(theirs), 1e-9, "ratio of minima")
    z.contains(text, "zmc stage 0 / DDP", "zmc stage 3 / FSDP2", "zmc stage 3 / zmc stage 0", "not measured: left out by --no-deepspeed")


if __name__ == "__main__":
    if torch_python() is None or not shutil.which("mpirun"):
        print("no Python with torch, or no mpirun")
        sys.exit(77)
    z.main()
