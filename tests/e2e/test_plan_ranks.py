"""What the plan promises of many ranks is what runs: arena and bytes sent, for stages 0 to 3 on sizes that no number of ranks divides.
Skipped where mpirun is not installed."""
import itertools
import json
import shutil
import sys

from zmtest import *

if not shutil.which("mpirun"):
    print("skipped: ranks as processes: mpirun is not installed")
    sys.exit(77)

ODD = {"layers": 1, "heads": 1, "width": 251, "ctx": 19, "T": 17, "B": 1, "vocab": 97}
CASES = {(): (2, 3, 4, 8), ("--precision", "bf16", "--grad-comm", "low", "--accumulate", 2): (3,), ("--accumulate", 3, "--zero2-reduce", "step"): (2,)}


def planned(ranks, zero, args):
    return json.loads(run([ZMC, "plan", GPT2, *defines(ODD), "--ranks", ranks, "--zero", zero, *args, "--json"])[0])


def check(ranks, zero, args):
    what = f"{ranks} ranks, zero {zero}, {args}"
    exe = compile_model(d=ODD, extra=["--ranks", ranks, "--zero", zero, *args])
    p, m = planned(ranks, zero, args), path("m.jsonl")
    if os.path.exists(m):
        os.unlink(m)
    run([ZMC, "run", "-n", ranks, exe, "--data", tokens(), "--steps", 2, "--metrics", m, "--threads", 1])
    steps = metrics(m)
    same(len(steps), 2, f"steps of {what}")
    for s in steps:
        same(s["arena_bytes"], p["per_rank"][0]["arena"], f"arena of plan and run, {what}")
        same(s["comm_bytes"], sum(c["bytes"] for c in p["comm"]), f"bytes that rank 0 sends by the plan and in a step, {what}")


def test_arena_and_bytes_sent():
    for (args, ranks), zero in itertools.product(CASES.items(), range(4)):
        for n in ranks:
            if "--zero2-reduce" not in args or zero >= 2:
                check(n, zero, args)


main()
