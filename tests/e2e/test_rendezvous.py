"""Ranks that meet by themselves over TCP: the same numbers as over mpirun, and what goes wrong is named within the limit."""
import shutil
import signal
import socket
import time

from zmtest import *

LIMIT_S = 10  # from when a rank fails or hangs until every rank has said so
SLACK_S = 3  # to start and end processes on a machine that other work shares


def model(n, zero=0, *extra):
    return compile_model(d={**SMALL, "B": 12 // n}, extra=("--ranks", n, "--zero", zero, *extra))


class Ranks:
    """Processes of their own; env: more of the environment of each."""

    def __init__(self, exe, args, places, env):
        self.all = []
        for place, more in zip(places, env, strict=True):
            command = [exe, *args, "--rendezvous", place, "--threads", 1]
            self.all.append(
                subprocess.Popen(
                    [str(a) for a in command], env={**os.environ, **more}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
                )
            )

    def end(self, within_s):
        """Exit codes and stderrs."""
        end, got = time.time() + within_s, []
        try:
            for p in self.all:
                _, err = p.communicate(timeout=max(0.1, end - time.time()))
                got.append((p.returncode, err.decode(errors="replace")))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"a rank still ran after {within_s} s") from None
        finally:
            for p in self.all:
                if p.poll() is None:
                    p.kill()
        return [code for code, _ in got], [err for _, err in got]


def numbered(n):
    return [{"ZMC_RANK": str(r), "ZMC_WORLD": str(n)} for r in range(n)]


def free_address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def numbers(name):
    """What a run has computed."""
    return [{k: v for k, v in s.items() if k not in ("step_s", "tokens_s")} for s in metrics(name)]


def steps_of(exe, n, steps, place, env, *args):
    m = path("m.jsonl")
    if os.path.exists(m):
        os.unlink(m)
    ranks = Ranks(exe, ["--data", tokens(), "--steps", steps, "--metrics", m, *args], [place] * n, env)
    codes, errs = ranks.end(120)
    same(codes, [0] * n, f"exit codes and 0: {errs}")
    assert not os.path.exists(place), f"{place} was left"
    return numbers(m)


def test_same_numbers():
    for n, zero, extra in ((2, 0, ()), (3, 2, ("--precision", "bf16")), (4, 3, ()), (2, 1, ("--precision", "fp16"))):
        exe = model(n, zero, *extra)
        in_order = steps_of(exe, n, 12, path("meet"), [{}] * n, "--export", path("a"))
        by_number = steps_of(exe, n, 12, free_address(), numbered(n), "--export", path("b"))
        same(in_order, by_number, f"{n} ranks at stage {zero}: numbered in order of arrival, and by ZMC_RANK")
        same(read(path("a")), read(path("b")), "their weights")
        if not shutil.which("mpirun"):
            continue
        m = path("mpi.jsonl")
        if os.path.exists(m):
            os.unlink(m)
        run([ZMC, "run", "-n", n, exe, "--data", tokens(), "--steps", 12, "--metrics", m, "--export", path("c"), "--threads", 1])
        same(in_order, numbers(m), f"{n} ranks at stage {zero}: over TCP, and over MPI")
        same(read(path("a")), read(path("c")), "their weights")


def running(exe, n, place):
    """Ranks that have done some steps, of a run without end."""
    m = path("running.jsonl")
    if os.path.exists(m):
        os.unlink(m)
    r = Ranks(exe, ["--data", tokens(), "--steps", 10**8, "--metrics", m], [place] * n, numbered(n))
    end = time.time() + 60
    while not (os.path.exists(m) and os.path.getsize(m) > 1000):
        assert all(p.poll() is None for p in r.all) and time.time() < end, "the ranks have not begun"
        time.sleep(0.02)
    return r


def test_killed_rank():
    r = running(model(3, 2), 3, path("meet"))
    r.all[1].kill()
    codes, errs = r.end(LIMIT_S + SLACK_S)
    same(codes, [2, -signal.SIGKILL, 2], "exit codes")
    for err in (errs[0], errs[2]):
        contains(err, "rank 1 is gone", " of '", "gpt2.zm:", "--resume DIR")


def test_stopped_rank():
    r = running(model(3, 3), 3, free_address())
    r.all[2].send_signal(signal.SIGSTOP)
    start = time.time()
    while any(p.poll() is None for p in r.all[:2]) and time.time() - start < LIMIT_S + SLACK_S:
        time.sleep(0.05)
    r.all[2].kill()
    codes, errs = r.end(SLACK_S)
    same(codes, [2, 2, -signal.SIGKILL], "exit codes")
    for err in errs[:2]:
        contains(err, "rank 2 hangs", " of '", "gpt2.zm:", "whether its process is stopped")


def test_signal():
    r = running(model(2, 0), 2, path("meet"))
    r.all[1].send_signal(signal.SIGTERM)
    codes, errs = r.end(30)
    same(codes, [143, 143], f"exit codes: {errs}")


def test_signal_before_all_have_come():
    exe, args = model(3, 0), ["--data", tokens(), "--steps", 1]
    for stop, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        for place in (path("meet"), free_address()):
            for waiting in ((0,), (1,), (0, 1)):  # a rank 0, one that looks for it, and one that is seated
                r = Ranks(exe, args, [place] * len(waiting), [numbered(3)[i] for i in waiting])
                time.sleep(1)
                r.all[-1].send_signal(stop)
                codes, errs = r.end(SLACK_S)
                same(codes, [2] * (len(waiting) - 1) + [code], f"exit codes: {errs}")
                contains(errs[-1], f"stopped by {stop.name} before all 3 ranks had met at {place}")
                assert not os.path.exists(place), f"{place} was left"
    r = Ranks(exe, args, [path("meet")] * 2, numbered(3)[:2])  # rank 0 tells the other
    time.sleep(1)
    r.all[0].send_signal(signal.SIGTERM)
    codes, errs = r.end(SLACK_S)
    same(codes, [143, 2], f"exit codes: {errs}")


def test_wrong_start():
    two, other, args = model(2, 0), model(2, 1), ["--data", tokens(), "--steps", 1]
    codes, errs = Ranks(two, args, [free_address()], [{}]).end(30)  # no number at an address
    same(codes, [1], "exit codes")
    contains(errs[0], "each process needs its number", "ZMC_RANK", "FILE")
    codes, errs = Ranks(two, args, [path("meet")], [{"ZMC_WORLD": "3", "ZMC_RANK": "0"}]).end(30)
    same(codes, [1], "exit codes")
    contains(errs[0], "compiled for 2 ranks, but 3 started")
    codes, errs = Ranks(two, args, [path("meet")] * 2, [{"ZMC_RANK": "1", "ZMC_MEETING_LIMIT": "1"}] * 2).end(30)
    same(codes, [2, 2], "exit codes")
    contains(errs[0], "rank 1: error: nobody has waited for this rank at", "ZMC_MEETING_LIMIT")
    codes, errs = Ranks(two, args, [path("meet")], [{"ZMC_MEETING_LIMIT": "1"}]).end(30)
    same(codes, [2], "exit codes")
    contains(errs[0], "not all 2 ranks have come to", "missing rank 1")
    a, b = (Ranks(exe, args, [path("meet")], [e]) for exe, e in zip((two, other), numbered(2), strict=True))
    codes, errs = zip(*(r.end(30) for r in (a, b)), strict=True)
    same(codes, ([1], [1]), "exit codes")
    contains(errs[0][0], "rank 1 runs another program", "zero stage 1, rank 0 zero stage 0")
    same(errs[1][0], "", "what rank 1 says of what rank 0 has said")
    precious = write("precious.bin", b"weights")
    codes, errs = Ranks(two, args, [precious], [{}]).end(30)
    same(codes, [1], "exit codes")
    contains(errs[0], "no meeting of ranks has made it")
    same(read(precious), b"weights", "a file that was there")


def test_without_mpirun():
    """`zmc run` starts the ranks itself: numbers, exit codes, signals and restarts."""
    exe = model(2, 2)
    bare = {**os.environ, "PATH": path("bin"), "TMPDIR": WORK}
    os.makedirs(bare["PATH"], exist_ok=True)
    m = path("bare.jsonl")
    command = [ZMC, "run", "-n", 2, exe, "--data", tokens(), "--threads", 1]
    _, err = run([*command, "--steps", 12, "--metrics", m], env=bare)
    contains(err, "mpirun is not there: 2 ranks on this machine")
    same(numbers(m), steps_of(exe, 2, 12, path("meet"), [{}] * 2), "steps")
    _, err = run([*command, "--steps", 2, "--load", "/nowhere"], 1, env=bare)
    same(err.count("/nowhere"), 1, "ranks that say what is missing, and 1:")
    p = subprocess.Popen([str(a) for a in [*command, "--steps", 10**8, "--save", path("ck")]], env=bare, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(2)
    p.terminate()
    _, err = p.communicate(timeout=60)
    same(p.returncode, 143, f"exit code: {err}")
    contains(err.decode(), "saved ")
    same([f for f in os.listdir(WORK) if f.startswith("zmc-run")], [], "folders that were left")


if __name__ == "__main__":
    main()
