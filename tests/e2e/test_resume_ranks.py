"""The state over ranks as processes: what one number of ranks and one stage write, any other reads; initial weights, exported
weights and dumped gradients are the same bytes; no rank ever holds the whole model.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from zmtest import *

if not shutil.which("mpirun"):
    print("skipped: ranks as processes: mpirun is not installed")
    sys.exit(77)

GLOBAL = 6  # samples a step, whatever the ranks
ENV = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def model(n, zero=0, *extra):
    d = {**SMALL, "B": GLOBAL // n}
    return compile_model(d=d, extra=("--ranks", n, "--zero", zero, *extra))


def on_ranks(n, *command, code=0):
    launcher = ("mpirun", "-n", n, "--oversubscribe", "--bind-to", "none", "--quiet") if n > 1 else ()
    return run([*launcher, *command, "--threads", 1], code, env=ENV)


def steps_of(n, exe, steps, *args):
    m = path("m.jsonl")
    if os.path.exists(m):
        os.unlink(m)
    _, err = on_ranks(n, exe, "--data", tokens(), "--steps", steps, "--metrics", m, *args)
    return metrics(m), err


def fresh(name):
    shutil.rmtree(path(name), ignore_errors=True)
    return path(name)


def export_of(n, exe, *args):
    out = path("w.safetensors")
    on_ranks(n, exe, "--steps", 0, "--export", out, *args)
    return read(out)


def test_initial_weights():
    for precision in ("fp32", "bf16"):
        one = export_of(1, model(1, 0, "--precision", precision), "--seed", 3)
        for n, zero in ((2, 0), (2, 2), (2, 3), (3, 3), (3, 1)):
            same(export_of(n, model(n, zero, "--precision", precision), "--seed", 3), one, f"{precision}: initial weights of 1 rank and of {n}, stage {zero}")


def test_resume_anywhere():
    """Saved on 2 ranks at stage 3, resumed elsewhere: the same weights at once, the same losses later."""
    one, _ = steps_of(1, model(1), 10)
    two, _ = steps_of(2, model(2, 3), 10, "--export", path("straight"))
    ck = fresh("ck")
    steps_of(2, model(2, 3), 5, "--save", ck, "--export", path("half"))
    same(sorted(os.listdir(os.path.join(ck, "step-00000005"))), ["manifest.json", "rank-0.safetensors", "rank-1.safetensors"], "files of the checkpoint")
    for n, zero in ((1, 0), (3, 1), (3, 3), (2, 0), (2, 1), (2, 3)):
        exe = model(n, zero)
        same(export_of(n, exe, "--resume", ck), read(path("half")), f"weights resumed on {n} ranks at stage {zero}")
        rest, err = steps_of(n, exe, 10, "--resume", ck, "--export", path("resumed"))
        contains(err, "resumed at step 5\n")
        same(err.count("resumed at step"), 1, "number of ranks that say so, and 1,")
        same([s["step"] for s in rest], list(range(5, 10)), "steps")
        for a, b in zip(rest, one[5:]):
            close(a["loss"], b["loss"], 1e-5, f"loss of step {a['step']} on {n} ranks at stage {zero}")
        if n == 2:  # stages are bit-equal
            same([s["loss"] for s in rest], [s["loss"] for s in two[5:]], f"losses of a straight run and of one resumed at stage {zero}")
            same(read(path("resumed")), read(path("straight")), f"weights of a straight run and of one resumed at stage {zero}")


def test_resume_other_precision():
    ck = fresh("ck16")
    low = ("--precision", "bf16")
    steps_of(3, model(3, 2, *low), 4, "--save", ck, "--export", path("half"))
    same(export_of(2, model(2, 3, *low), "--resume", ck), read(path("half")), "masters resumed in bf16")
    same(export_of(2, model(2, 3), "--resume", ck), read(path("half")), "masters resumed in fp32")
    same(export_of(1, model(1, 0, *low), "--resume", ck), read(path("half")), "masters resumed on one rank")


def test_damaged():
    """Rank 1's file of the newest one: all ranks go back to the one before."""
    ck = fresh("ckd")
    steps_of(2, model(2, 3), 4, "--save", ck, "--save-every", 2)
    name = os.path.join(ck, "step-00000004", "rank-1.safetensors")
    raw = bytearray(read(name))
    raw[-20] ^= 1
    write(name, bytes(raw))
    for n, zero in ((2, 3), (3, 1), (1, 0)):
        _, err = steps_of(n, model(n, zero), 3, "--resume", ck)
        contains(err, "rank-1.safetensors is damaged: the checksum of tensor", "resumed at step 2\n")


def test_gradients():
    """The same file at every stage; the gradient of one rank with all samples but for rounding."""
    files = []
    for zero in range(4):
        steps_of(2, model(2, zero), 1, "--dump-grads", path(f"g{zero}"))
        files.append(read(path(f"g{zero}")))
    assert all(f == files[0] for f in files), "gradients differ between stages"
    steps_of(1, model(1), 1, "--dump-grads", path("g"))
    one, two = safetensors(path("g")), safetensors(path("g0"))
    same(sorted(one), sorted(two), "names of gradients")
    for name, (dtype, shape, data) in one.items():
        same(two[name][:2], (dtype, shape), f"dtype and shape of {name}")
        a, b = memoryview(data).cast("f"), memoryview(two[name][2]).cast("f")
        norm = sum(x * x for x in a) ** 0.5
        off = sum((x - y) ** 2 for x, y in zip(a, b)) ** 0.5
        assert norm > 0 and off <= 1e-5 * norm, f"gradient of {name}: off by {off}, its norm is {norm}"


def test_one_rank_cannot_open():
    """What rank 1 alone cannot open before the gradients' file is: all say it, none waits for the file."""
    exe, out = model(2, 3), path("unwritten")
    os.mkdir(path("t.rank1.json"))
    _, err = on_ranks(2, exe, "--data", tokens(), "--steps", 1, "--profile", path("t.json"), "--dump-grads", out, code=1)
    contains(err, "rank 1: cannot write", "t.rank1.json")
    assert not os.path.exists(out) and not [f for f in os.listdir(WORK) if f.startswith("unwritten")]


def test_load():
    """What one rank exported is loaded by others; what does not fit is said once."""
    first = path("w1")
    on_ranks(1, model(1), "--steps", 0, "--seed", 9, "--export", first)
    for n, zero in ((2, 0), (2, 3), (3, 2)):
        same(export_of(n, model(n, zero), "--load", first), read(first), f"weights through {n} ranks at stage {zero}")
    other = compile_model(d={**SMALL, "B": 3, "width": 36, "layers": 1}, extra=("--ranks", 2, "--zero", 3))
    _, err = on_ranks(2, other, "--steps", 0, "--load", first, code=1)
    contains(err, "does not fit the model gpt2; nothing was loaded", "unexpected in the file", "wte.weight: [251, 39] in the file, [251, 36] in the program")
    same(err.count("does not fit the model"), 1, "number of ranks that say it, and 1,")
    _, err = on_ranks(2, other, "--steps", 0, "--load", path("absent"), code=1)
    same(err.count("cannot read"), 1, "number of ranks that say it, and 1,")
    _, err = on_ranks(2, other, "--steps", 0, "--resume", path("absent"), code=1)
    same(err.count("cannot read checkpoints in"), 1, "number of ranks that say it, and 1,")


def test_poison():
    """Buffers laid out apart: the same files."""
    files = []
    for flags in ((), ("--poison",)):
        ck, out, grads = fresh("ckp"), path("wp"), path("gp")
        steps_of(2, model(2, 3), 3, "--save", ck, "--export", out, "--dump-grads", grads, *flags)
        part = os.path.join(ck, "step-00000003", "rank-1.safetensors")
        files.append((read(out), read(grads), read(part)))
    assert files[0] == files[1], "files differ with --poison"


def ranks_below(pid):
    """Processes that mpirun has started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as f:
        return [int(c) for c in f.read().split()]


def test_killed_while_saving():
    """One rank is killed at some moment of a run that saves after every step: what is found is whole, and the run ends."""
    for turn in range(4):
        ck = fresh("ckk")
        command = ["mpirun", "-n", "2", "--oversubscribe", "--bind-to", "none", "--quiet", model(2, 3), "--threads", "1", "--data", tokens(), "--steps", "1000000", "--save", ck, "--save-every", "1"]
        p = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end and not (os.path.isdir(ck) and any(f.startswith("step-") for f in os.listdir(ck))):
            time.sleep(0.01)
        time.sleep(0.05 + 0.037 * turn)
        os.kill(ranks_below(p.pid)[turn % 2], signal.SIGKILL)
        assert p.wait(timeout=30) != 0
        _, err = on_ranks(2, model(2, 3), "--steps", 0, "--resume", ck)
        contains(err, "resumed at step")
        assert "warning" not in err, err
        step = int(err.split("resumed at step ")[1].split()[0])
        steps_of(3, model(3, 1), step + 1, "--resume", ck, "--save", ck)
        assert not [f for f in os.listdir(ck) if f.startswith(".tmp")], "the next save leaves what the killed one left"
    shutil.rmtree(ck)


PEAK = '''import os, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1] + "-" + os.environ["OMPI_COMM_WORLD_RANK"], "w") as f:
    f.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
'''


def peaks(n, exe, *args):
    """Peak resident KiB of each rank."""
    out = path("peak")
    wrapper = write("peak.py", PEAK.encode())
    on_ranks(n, sys.executable, wrapper, out, exe, *args)
    return [int(read(f"{out}-{r}")) for r in range(n)]


def test_memory():
    """A model of 137 MB of weights and moments on 4 ranks: reading or writing all of it needs less than 24 MiB beside the arena, a
    part of the weights alone."""
    d = {"layers": 3, "heads": 4, "width": 384, "ctx": 16, "T": 16, "B": 2, "vocab": 16000}
    exe = compile_model(d=d, extra=("--ranks", 4, "--zero", 3))
    plan = json.loads(run([ZMC, "plan", GPT2, *(w for k, v in d.items() for w in ("-D", f"{k}={v}")), "--ranks", 4, "--zero", 3, "--json"])[0])
    assert plan["params"] * 12 > 130e6
    tiny = model(2, 3)
    own = max(peaks(2, tiny, "--steps", 0))  # MPI's and the runtime's, with a small arena
    arena = plan["per_rank"][0]["arena"] // 1024
    ck, w = fresh("ckm"), path("wm")
    for args in ((), ("--export", w), ("--save", ck), ("--load", w), ("--resume", ck), ("--resume", ck, "--steps", 2, "--data", tokens())):
        peak = max(peaks(4, exe, *args, *(() if "--steps" in args else ("--steps", 0))))
        assert peak <= arena + own + 24 * 1024, f"{args}: {peak} KiB resident; the arena takes {arena}, MPI {own}"
    same(len(os.listdir(os.path.join(ck, "step-00000000"))), 5, "files of the checkpoint, and 5,")
    assert os.path.getsize(w) > 40e6
    shutil.rmtree(ck)


main()
