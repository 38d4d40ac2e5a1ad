"""Runs on many ranks as processes: N ranks x B are one rank x N B, all stages give the same bits, one rank's overflow is
everybody's, and whatever goes wrong on one rank ends them all with a message."""
import os
import re
import shutil
import signal
import time

from zmtest import *

if not shutil.which("mpirun"):
    print("skipped: ranks as processes: mpirun is not installed")
    sys.exit(77)

GLOBAL = 12  # samples a step, whatever the ranks
FOREVER = 10**8


def model(n, zero=0, *extra, batch=GLOBAL):
    return compile_model(d={**SMALL, "B": batch // n}, extra=("--ranks", n, "--zero", zero, *extra))


def launch(n, exe, *args):
    return [ZMC, "run", "-n", n, exe, *args, "--threads", 1]


def steps_on(n, exe, steps, *args, code=0):
    """Step metrics, and stderr."""
    m = path("m.jsonl")
    if os.path.exists(m):
        os.unlink(m)
    _, err = run(launch(n, exe, "--data", tokens(), "--steps", steps, "--metrics", m, *args), code)
    return metrics(m), err


def without_comm(steps):
    return [{k: v for k, v in s.items() if k not in ("comm_bytes", "arena_bytes")} for s in steps]


def processes_of(exe):
    """Ids of the ranks that run exe."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/exe") == os.path.realpath(exe):
                found.append(int(pid))
        except OSError:
            pass
    return sorted(found)


class Running:
    """A run without end, of which rank 0 has done some steps."""

    def __init__(self, n, exe, *args, launcher=None):
        self.exe, self.metrics = exe, path("running.jsonl")
        if os.path.exists(self.metrics):
            os.unlink(self.metrics)
        args = ["--data", tokens(), "--steps", FOREVER, "--metrics", self.metrics, *args]
        command = [*launcher, exe, *args] if launcher else launch(n, exe, *args)
        self.process = subprocess.Popen([str(a) for a in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        end = time.time() + 60
        while not (os.path.exists(self.metrics) and os.path.getsize(self.metrics) > 1000):
            assert self.process.poll() is None and time.time() < end, self.process.stderr.read()
            time.sleep(0.02)
        self.ranks = processes_of(exe)
        same(len(self.ranks), n, "processes and ranks")

    def end(self, within_s):
        """Exit code and stderr; a run that goes on is a failure."""
        try:
            _, err = self.process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            for pid in processes_of(self.exe):
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"it still ran after {within_s} s") from None
        return self.process.returncode, err.decode(errors="replace")


# ---- numbers ----


def test_one_rank_and_many():
    one, _ = steps_on(1, model(1), 50)
    for n, zero in ((2, 0), (2, 3), (3, 2), (4, 1), (4, 3)):
        many, _ = steps_on(n, model(n, zero), 50)
        for a, b in zip(one, many, strict=True):
            within = 1e-5 if a["step"] <= 10 else 1e-4
            for key in ("loss", "grad_norm"):
                close(a[key], b[key], within, f"{key} of step {a['step']} on 1 rank and on {n} at stage {zero}")
            same(a["lr"], b["lr"], "learning rates")


def test_stages_and_reruns():
    for n, extra in ((2, ()), (3, ("--precision", "bf16")), (2, ("--accumulate", 2))):
        first = None
        for zero in (0, 1, 2, 3, 3):
            at_step = ("--zero2-reduce", "step") if "--accumulate" in extra and zero >= 2 else ()  # else sums are taken in another order
            steps, _ = steps_on(n, model(n, zero, *extra, *at_step), 12, "--export", path("w"))
            got = (without_comm(steps), read(path("w")))
            same(got, first or got, f"runs on {n} ranks with {extra}: that of stage 0 and that of stage {zero}")
            first = got


def test_overflow_on_one_rank():
    for precision, stages in (("bf16", (0, 2)), ("fp16", (1, 3))):
        for zero in stages:
            exe = model(2, zero, "--precision", precision, "--loss-scale", "dynamic:init=256,hysteresis=1")
            steps, err = steps_on(2, exe, 5, "--fault", "nonfinite@3:1,1:0", "--check-replicas", 1)
            same([s["skipped"] for s in steps], [False, True, False, True, False], f"{precision}, stage {zero}: skipped steps")
            same([s["loss_scale_next"] for s in steps], [256, 128, 128, 64, 64], f"{precision}, stage {zero}: loss scales")
            same([s["update"] for s in steps], [1, 1, 2, 2, 3], f"{precision}, stage {zero}: updates")
            contains(err, "2 skipped")
            same(len(re.findall(r"compared: [1-9][0-9]* tensors, [1-9][0-9]* bytes, are alike on all ranks", err)), 1, "lines that say what is compared, and 1:")


def test_many_skipped_steps():
    faults = ",".join(f"nonfinite@{i}:1" for i in range(3))
    exe = model(2, 3, "--precision", "fp16", "--loss-scale", "dynamic:init=2,hysteresis=1,min=1")
    _, err = steps_on(2, exe, 9, "--fault", faults, code=2)
    contains(err, "step 1 overflowed at the least loss scale, 1", "on rank 1, ", "gpt2.zm:")
    same(err.count("error:"), 1, "ranks that say so, and 1:")


def test_poison_and_profile():
    for zero in (0, 3):
        exe = model(2, zero, "--accumulate", 2)
        plain, _ = steps_on(2, exe, 4, "--export", path("w"))
        trace = path(f"trace{zero}.json")
        odd, err = steps_on(2, exe, 4, "--poison", "--check-numerics", "--check-replicas", 2, "--profile", trace, "--export", path("p"))
        same(odd, plain, f"stage {zero}: steps with --poison and without")
        same(read(path("p")), read(path("w")), f"stage {zero}: weights with --poison and without")
        contains(err, "peaks, 1 thread: ", "GF/s of f32 FMA", "sum of limits")
        for rank, name in ((0, trace), (1, path(f"trace{zero}.rank1.json"))):
            events = json.loads(read(name))["traceEvents"]
            same({e["pid"] for e in events}, {rank}, "ranks in a trace")
            contains({e["args"]["kernel"] for e in events}, "all_gather", "reduce_scatter", "all_reduce")
            names = [e["name"] for e in events]
            contains(names, "all_reduce of scalars", "wait: all_reduce of scalars")
            same(names.count("all_reduce of scalars"), 4, "reductions of scalars in 4 steps")


def test_evaluate_and_generate():
    def end_of(n, zero, steps):
        m = path("eval.jsonl")
        if os.path.exists(m):
            os.unlink(m)
        out, _ = run(launch(n, model(n, zero), "--data", tokens(), "--steps", steps, "--metrics", m, "--eval-data", tokens(1000), "--eval-every", 2,
                            "--generate", 12, "--prompt", "ab"))
        return [l for l in map(json.loads, read(m).decode().splitlines()) if "eval_loss" in l], out

    one, text = end_of(1, 0, 4)
    same([l["step"] for l in one], [2, 4], "evaluated steps")
    for n, zero in ((2, 0), (3, 3)):
        many, _ = end_of(n, zero, 4)
        for a, b in zip(one, many, strict=True):
            same(a["eval_tokens"], b["eval_tokens"], f"evaluated tokens on 1 rank and on {n}")
            close(a["eval_loss"], b["eval_loss"], 1e-5, f"evaluation on 1 rank and on {n}")
        same(end_of(n, zero, 0)[1], end_of(1, 0, 0)[1], f"texts of the initial weights on 1 rank and on {n}")
    assert text.startswith("ab") and text.endswith("\n")


# ---- what goes wrong ----


def test_refused():
    exe = model(2, 1)
    _, err = run([exe, "--data", tokens(), "--steps", 1], 1)
    contains(err, "compiled for 2 ranks, but one process started", "zmc run -n 2", "--ranks 1")
    for n, program in ((3, exe), (2, model(1))):
        _, err = run(launch(n, program, "--data", tokens(), "--steps", 1), 1)
        contains(err, "the program was compiled for", f"but {n} started", f"--ranks {n}")
        same(err.count("error:"), 1, "messages, and 1:")
    for args, why in ((("--data", "absent"), "cannot read data absent"), (("--data", tokens(), "--audit-numerics"), "--audit-numerics works on one rank"),
                      (("--data", tokens(), "--fault", "nonfinite@1:2"), "ranks 0 to 1"), (("--data", tokens(), "--step", 1), "unknown option --step")):
        _, err = run(launch(2, exe, *args, "--steps", 1), 1)
        contains(err, why)
        same(err.count("error:"), 1, "messages, and 1:")
    for command in ([exe], launch(2, exe)):
        out, _ = run([*command, "--info"])
        same(out.count("ranks       2, zero stage 1"), 1, "ranks that say what the program is, and 1:")
    steps, _ = steps_on(2, exe, 1)
    contains(out, f" in a step, {steps[0]['comm_bytes']} bytes sent by a rank")


def test_launchers():
    """Inside an allocation of Slurm srun starts the ranks; without mpirun zmc does (test_rendezvous.py)."""
    bin_dir = path("bin")
    os.makedirs(bin_dir, exist_ok=True)
    with open(os.path.join(bin_dir, "srun"), "w", encoding="utf-8") as f:
        f.write('#!/bin/sh\necho "srun $@"\nexit 3\n')
    os.chmod(f.name, 0o755)
    exe = model(2, 1)
    env = {**os.environ, "PATH": bin_dir + ":" + os.environ["PATH"], "SLURM_JOB_ID": "7"}
    out, _ = run([ZMC, "run", "-n", 2, exe, "--steps", 1], 3, env=env)
    same(out, f"srun -n 2 --mpi=pmix --kill-on-bad-exit=1 {exe} --steps 1\n", "srun's command line and the expected one")
    _, err = run([ZMC, "run", "-n", 2, exe, "--steps", 1], 1, env={**os.environ, "PATH": "/nowhere", "SLURM_JOB_ID": "7"})
    contains(err, "cannot run srun", "SLURM_JOB_ID")
    _, err = run([ZMC, "run", "-n", 2, path("absent")], 1)
    contains(err, "cannot run", "absent: No such file or directory")
    run([ZMC, "run", "-n", "two", exe], 1)


def mpirun(*parts, **more):
    """Ranks with command lines of their own; more: environment."""
    words = ["mpirun", "--oversubscribe", "--bind-to", "none", "--quiet"]
    for i, part in enumerate(parts):
        words += [*([":"] if i else []), "-n", 1, *part]
    env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **more}
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60, check=False, env=env)
    return done.returncode, done.stderr.decode(errors="replace")


def test_other_options_on_one_rank():
    exe, line = model(2, 1), ["--data", tokens(), "--threads", 1]
    code, err = mpirun([exe, *line, "--steps", 5], [exe, *line, "--steps", 6])
    same(code, 1, "exit code and 1")
    contains(err, "--steps differs between ranks: 6 on rank 1, 5 on rank 0")
    code, err = mpirun([exe, *line, "--steps", 5], [exe, *line, "--steps", 5, "--seed", 7])
    contains(err, "--seed differs between ranks: 7 on rank 1, 0 on rank 0")
    code, err = mpirun([exe, *line, "--steps", 5], [model(2, 2), *line, "--steps", 5])
    contains(err, "rank 1 runs another program", "it has zero stage 2, rank 0 zero stage 1; start the same executable")
    same((code, err.count("error:")), (1, 1), "exit code, messages, and 1, 1:")


def test_bad_options_of_one_rank():
    """Before the ranks have met each speaks for itself."""
    exe, line = model(2, 1), ["--data", tokens(), "--steps", 4]
    code, err = mpirun([exe, *line], [exe, *line, "--bogus"])
    same(code, 1, "exit code and 1")
    contains(err, "rank 1: error: unknown option --bogus")
    code, err = mpirun([exe, *line], [model(1), *line])
    same(code, 1, "exit code and 1")
    contains(err, "rank 1: error: the program was compiled for 1 rank, but 2 started")


def test_a_rank_that_does_not_come():
    exe, line = model(2, 1), ["--data", tokens(), "--steps", 2]
    for other in ([exe, "--help"], ["/bin/true"]):
        code, err = mpirun(other, [exe, *line], ZMC_MEETING_LIMIT="2")
        same(code, 2, "exit code and 2")
        contains(err, "rank 1: error: not all 2 ranks have come in 2 s", "look at what it wrote")


def test_no_room_for_the_library():
    """The MPI library that the executable carries is a file in memory, which the limit of file sizes holds for, too."""
    exe = model(2, 1)
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", exe, "--data", tokens(), "--steps", 1]
    code, err = mpirun([exe, "--data", tokens(), "--steps", 1], limited)
    same(code, 2, "exit code and 2")
    contains(err, "rank 1: error: cannot load the MPI library that this executable carries: File too large", "ulimit -f")


def test_bad_data_of_one_rank():
    """A token that rank 1 alone reads, in its third step: bad input on all ranks."""
    raw = bytearray(read(tokens()))
    raw[(2 * GLOBAL + GLOBAL // 2) * SMALL["T"] + 3] = 255
    steps, err = steps_on(2, model(2, 1), 9, "--order", "sequential", "--data", write("bad-token", raw), code=1)
    same(len(steps), 2, "steps done, and 2:")
    contains(err, "rank 1: error: ", "token 255 at position", "rank 0: error: rank 1 stopped, awaited by rank 0 in ")


def test_killed_rank():
    exe = model(3, 3)
    r = Running(3, exe)
    os.kill(r.ranks[1], signal.SIGKILL)
    code, err = r.end(10)
    assert code not in (0, 1), code
    contains(err, " is gone, awaited by rank ", "gpt2.zm:", "often ran out of memory; go on from a checkpoint with --resume DIR, or let zmc run --restarts N")
    same(processes_of(exe), [], "ranks left")


def test_hanging_rank():
    exe = model(2, 3)
    r = Running(2, exe)
    os.kill(r.ranks[1], signal.SIGSTOP)
    code, err = r.end(14)  # 10 s, and what mpirun takes to end a stopped process
    same(code, 2, "exit code and 2")
    contains(err, " hangs: rank ", " of '", "gpt2.zm:", "whether its process is stopped", "--resume DIR", "zmc run --restarts N")
    same(processes_of(exe), [], "ranks left")


def test_signals():
    exe, ck = model(2, 2), path("ck-signals")
    for number in (signal.SIGTERM, signal.SIGINT):
        shutil.rmtree(ck, ignore_errors=True)
        r = Running(2, exe, "--save", ck)
        r.process.send_signal(number)
        code, err = r.end(10)
        same(code, 128 + number, f"exit code after {number.name} and {128 + number}")
        contains(err, f"saved {ck}/step-")
        done = len(metrics(r.metrics))
        same(os.listdir(ck), [f"step-{done:08d}"], "checkpoint and steps done")


def test_signal_before_the_ranks_are_there():
    """The launcher has no process yet to pass it on to."""
    exe = model(2, 2)
    for wait_s in (0.05, 0.15, 0.3):
        command = launch(2, exe, "--data", tokens(), "--steps", FOREVER)
        p = subprocess.Popen([str(a) for a in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        time.sleep(wait_s)
        p.send_signal(signal.SIGINT)
        try:
            p.communicate(timeout=20)
        finally:
            p.kill()
        # before zmc itself listens a signal ends it as any process
        assert p.returncode in (130, -signal.SIGINT), p.returncode
        same(processes_of(exe), [], "ranks left")


def test_one_rank_is_told_to_stop():
    exe, ck = model(2, 0), path("ck-one")
    r = Running(2, exe, "--save", ck)
    os.kill(r.ranks[1], signal.SIGTERM)
    code, err = r.end(10)
    same(code, 143, "exit code and 143")
    contains(err, f"saved {ck}/step-")


def test_restarts():
    """A rank is killed in the middle; the second start goes on from the newest checkpoint and gives the same numbers."""
    exe, ck, m = model(2, 3), path("ck-restart"), path("running.jsonl")
    steps = 4000
    straight, _ = steps_on(2, exe, steps, "--export", path("straight"))
    if os.path.exists(m):
        os.unlink(m)
    command = [ZMC, "run", "-n", 2, "--restarts", 1, exe, "--data", tokens(), "--steps", steps, "--save", ck, "--save-every", 100, "--metrics", m,
               "--export", path("restarted"), "--threads", 1]
    p = subprocess.Popen([str(a) for a in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    end = time.time() + 60
    while not os.path.isdir(os.path.join(ck, "step-00000200")):
        assert p.poll() is None and time.time() < end, "no checkpoint"
        time.sleep(0.01)
    os.kill(processes_of(exe)[0], signal.SIGKILL)
    _, err = p.communicate(timeout=120)
    same(p.returncode, 0, f"exit code and 0: {err.decode()}")
    contains(err.decode(), "restart 1 of 1 from the newest checkpoint in", "resumed at step ")
    same(metrics(m), straight, "metrics with a restart and without")
    same(read(path("restarted")), read(path("straight")), "weights with a restart and without")
    _, err = run([ZMC, "run", "-n", 2, "--restarts", 1, exe, "--data", tokens(), "--steps", 1], 1)
    contains(err, "--restarts goes on from the checkpoints of OUT --save DIR")


if __name__ == "__main__":
    main()
