"""Ranks on simulated GPUs, over NCCL's stand-in: whatever goes wrong on one of them ends them all in time, with its name.

Injected failures: $GPUSIM_NCCL_FAULT (docs/gpusim.md).  The ranks meet over TCP: no MPI is needed.
"""
import signal
import time

from gputest import *

N = 2
GPT = dict(SMALL, layers=1, heads=2, width=26, ctx=9, T=9, B=2, vocab=61)
LIMIT_S = 10  # from when a rank fails or hangs until every rank has said so
SLACK_S = 5  # to start and end processes on a machine that other work shares
STEP_CALLS = 3  # collectives that are over before the fault


def model():
    return compile_model(d=GPT, extra=(*TARGET, "--ranks", N, "--zero", 2))


class Ranks:
    def __init__(self, steps, **more):
        env, self.report = gpu_env(more.pop("devices", N), **more)
        self.metrics = path("faults.jsonl")
        if os.path.exists(self.metrics):
            os.unlink(self.metrics)
        args = [model(), "--data", tokens(2000, GPT["vocab"]), "--steps", steps, "--metrics", self.metrics, "--rendezvous", path("meet"), "--threads", 1]
        self.all = [
            subprocess.Popen([str(a) for a in args], env={**env, "ZMC_RANK": str(r)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
            for r in range(N)
        ]

    def begin(self):
        end = time.time() + 120
        while not (os.path.exists(self.metrics) and os.path.getsize(self.metrics) > 0):
            assert all(p.poll() is None for p in self.all) and time.time() < end, "the ranks have not begun"
            time.sleep(0.02)

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


def faulty(fault, *, within_s=60, codes=(2, 2), **more):
    r = Ranks(6, GPUSIM_NCCL_FAULT=fault, **more)
    got, errs = r.end(within_s)
    same(got, list(codes), f"exit codes: {errs}")
    no_reports(r.report)
    return errs


def test_asynchronous_error():
    errs = faulty(f"error@{STEP_CALLS}:1")
    contains(errs[1], "rank 1: error: rank 1: NCCL 2.", "remote process exited", "injected", "NCCL_DEBUG")
    contains(errs[0], "rank 1 stopped, awaited by rank 0 in ", "remote process exited")


def test_refused_call():
    errs = faulty(f"refuse@{STEP_CALLS}:0")
    contains(errs[0], "rank 0: NCCL 2.", " of '", "gpt2.zm:", "unhandled system error", "injected")
    contains(errs[1], "rank 0 stopped, awaited by rank 1")


def test_rank_that_dies():
    errs = faulty(f"die@{STEP_CALLS}:1", codes=(2, -signal.SIGKILL))
    contains(errs[0], "rank 1 is gone, awaited by rank 0 in ", " of '", "gpt2.zm:", "--resume DIR")


def test_gpu_that_hangs():
    start = time.time()
    errs = faulty(f"hang@{STEP_CALLS}:1", within_s=60)
    assert time.time() - start < 2 * LIMIT_S + SLACK_S, "it took too long"  # with the start and the first step
    for err in errs:
        contains(err, "its GPU in ", " of '", "gpt2.zm:", "hangs")


def test_slow_rank():
    """Waited for, within the limit."""
    r = Ranks(2, GPUSIM_NCCL_FAULT=f"slow@{STEP_CALLS}:1:3")
    codes, errs = r.end(120)
    same(codes, [0, 0], f"exit codes: {errs}")
    no_reports(r.report)


def test_stopped_process():
    r = Ranks(10**6)
    r.begin()
    r.all[1].send_signal(signal.SIGSTOP)
    start = time.time()
    while r.all[0].poll() is None and time.time() - start < LIMIT_S + SLACK_S:
        time.sleep(0.05)
    r.all[1].kill()
    codes, errs = r.end(SLACK_S)
    same(codes, [2, -signal.SIGKILL], f"exit codes: {errs}")
    contains(errs[0], "rank 1 hangs: rank 0 has waited", "whether its process is stopped")


def test_killed_process():
    r = Ranks(10**6)
    r.begin()
    r.all[0].kill()
    codes, errs = r.end(LIMIT_S + SLACK_S)
    same(codes, [-signal.SIGKILL, 2], f"exit codes: {errs}")
    contains(errs[1], "rank 0 is gone, awaited by rank 1")


def test_start():
    errs = faulty("absent@0:1", ZMC_MEETING_LIMIT=2)
    contains("".join(errs), "NCCL has not connected the 2 ranks in 2 s, in the start of NCCL")
    errs = faulty("", codes=(1, 1), devices=1)
    contains("".join(errs), "ranks 0 and 1 have one GPU (gpusim", "CUDA_VISIBLE_DEVICES")
    errs = faulty("", codes=(1, 1), ZMC_NCCL="/nowhere")
    contains("".join(errs), 'ZMC_NCCL is "/nowhere"', "libnccl.so.2")
    errs = faulty("", codes=(1, 1), GPUSIM_NCCL_VERSION=21205)
    contains("".join(errs), "libnccl.so.2 is of version 2.12", "2.18 or later", "pip install nvidia-nccl-cu13")


if __name__ == "__main__":
    if IS_DRIVER:
        print("failures are injected by the simulator's NCCL only")
        sys.exit(77)
    main_on_gpu()
