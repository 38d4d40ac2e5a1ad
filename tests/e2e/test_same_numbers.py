"""The same program gives the same numbers: reruns, threads, resume, poison, accumulation, order."""
import json

from zmtest import *

DROPOUT = dict(SMALL, dropout=0.1)


def test_rerun_and_threads_are_bit_identical():
    exe = compile_model(d=DROPOUT)
    first = train(exe, 6, "--export", path("a.st"))
    for threads in (1, 2, 3, 7):
        again = train(exe, 6, "--threads", threads, "--export", path("b.st"))
        same(first, again, f"metrics with {threads} threads")
        same(read(path("a.st")), read(path("b.st")), f"weights with {threads} threads")


def test_losses_fall():
    m = train(compile_model(), 12)
    assert m[-1]["loss"] < m[0]["loss"] - 0.1, m


def test_seed_changes_numbers():
    exe = compile_model()
    assert train(exe, 1)[0]["loss"] != train(exe, 1, "--seed", 1)[0]["loss"]


def test_resume_is_bit_identical():
    exe = compile_model(d=DROPOUT)
    whole = train(exe, 9, "--export", path("whole.st"))
    part = train(exe, 4, "--save", path("ck"))
    same(whole[:4], part, "metrics before the save")
    rest = train(exe, 9, "--resume", path("ck"), "--export", path("rest.st"))
    same(whole[4:], rest, "metrics after resuming")
    same(read(path("whole.st")), read(path("rest.st")), "weights after resuming")


def test_poison_is_bit_identical():
    for extra in ((), ("--accumulate", 3)):
        exe = compile_model(d=DROPOUT, extra=extra)
        same(train(exe, 4, "--export", path("a.st")), train(exe, 4, "--poison", "--export", path("b.st")), "metrics with --poison")
        same(read(path("a.st")), read(path("b.st")), "weights with --poison")


def test_accumulation_equals_the_whole_batch():
    whole = train(compile_model(), 8, "--order", "sequential")
    parts = train(compile_model(d=dict(SMALL, B=1), extra=("--accumulate", 4)), 8, "--order", "sequential")
    for a, b in zip(whole, parts, strict=True):
        close(a["loss"], b["loss"], 1e-6, f"loss of step {a['step']}")
        close(a["grad_norm"], b["grad_norm"], 1e-5, f"norm of step {a['step']}")


def test_sgd_without_momentum_keeps_no_state():
    """A momentum too small to change any sum gives the same bits."""
    sgd = ["-D", "train.optimizer=sgd"]
    out, _ = run([ZMC, "plan", GPT2, *defines(SMALL), *sgd, "--json"])
    rank = json.loads(out)["per_rank"][0]
    same(rank["optimizer"], 0, "bytes of the optimizer's state")
    plain = train(compile_model(extra=sgd), 4)
    tiny = train(compile_model(extra=[*sgd, "-D", "train.optimizer.momentum=1e-30"]), 4)
    for a, b in zip(plain, tiny):
        same((a["loss"], a["grad_norm"]), (b["loss"], b["grad_norm"]), "loss and norm")
    assert plain[0]["loss"] != plain[-1]["loss"]
    exe = compile_model(extra=sgd)
    train(exe, 2, "--save", path("sgd"))
    resumed = train(exe, 4, "--resume", path("sgd"))
    same([m["loss"] for m in plain[2:]], [m["loss"] for m in resumed], "losses after --resume")


def test_instruction_sets_agree():
    """Other vector widths add in another order: equal to rounding, as the golden files' tolerances derive it."""
    want = train(compile_model(), 5, "--order", "sequential")
    for cpu in ("x86-64-v2", "x86-64-v3"):
        got = train(compile_model(extra=("--cpu", cpu)), 5, "--order", "sequential")
        for a, b in zip(want, got, strict=True):
            close(a["loss"], b["loss"], 1e-5, f"{cpu}: loss of step {a['step']}")


def test_16_bits_are_bit_identical_and_targets_agree():
    """Threads change no bit.  Between targets a sum may round to the next number of the dtype: an item's loss then moves by at most twice a
    logit's rounding, u |logit|, and the logits of these steps stay below 2."""
    for precision, u in (("bf16", 2**-8), ("fp16", 2**-11)):
        for amp in ("master", "autocast"):
            flags = ("--precision", precision, "--amp", amp, "--loss-scale", "1")
            want = train(compile_model(d=DROPOUT, extra=flags), 5, "--order", "sequential")
            for cpu in ("native", "x86-64-v2", "x86-64-v3"):
                exe = compile_model(d=DROPOUT, extra=(*flags, "--cpu", cpu))
                got = train(exe, 5, "--order", "sequential", "--export", path("b.st"))
                for a, b in zip(want, got, strict=True):
                    assert abs(a["loss"] - b["loss"]) <= 4 * u, (precision, amp, cpu, a, b)
                for threads in (1, 3):
                    same(got, train(exe, 5, "--order", "sequential", "--threads", threads, "--export", path("c.st")), f"{cpu}: {threads} threads")
                    same(read(path("b.st")), read(path("c.st")), f"{cpu}: weights with {threads} threads")


def test_random_order_covers_each_sample_once_an_epoch():
    """n samples, B = 1: an epoch of n steps with lr 0 sees each sample once, so the sum of losses is that of any order."""
    d = dict(SMALL, B=1, lr=0, warmup=0)
    exe = compile_model(d=d, extra=("-D", "train.optimizer.decay=0", "-D", "train.schedule.min=0"))
    data = tokens(17 * 23 + 1)
    losses = [sorted(m["loss"] for m in train(exe, 23, "--order", o, data=data)) for o in ("random", "sequential")]
    same(losses[0], losses[1], "losses of an epoch in random and sequential order")
    two = [m["loss"] for m in train(exe, 46, data=data)]
    assert two[:23] != two[23:], "two epochs have the same order"
    same(sorted(two[:23]), sorted(two[23:]), "losses of two epochs")


main()
