"""Bad input: a clear message with place and cure, the contract's exit code, and nothing lost."""
import os
import resource
import signal
import struct
import subprocess
import time

from zmtest import *


def refuse_model(text, *parts, args=()):
    f = write("bad.zm", text.encode())
    _, err = run([ZMC, f, *args, "-o", path("bad.exe")], code=1)
    contains(err, "bad.zm:", "error[", *parts)
    assert not os.path.exists(path("bad.exe"))


MLP = read(os.path.join(MODELS, "mlp.zm")).decode()


def test_models():
    refuse_model(MLP.replace("{", "", 1))
    refuse_model(MLP + "\nmodel second(x: [B, in]) { output x }\n")
    refuse_model("model m(x: [3, 4]) {\n  param w: [5, 2] = zeros\n  output y = x @ w\n}\n", "4", "5", ":3:")
    refuse_model("model m(x: [3, 4]) {\n  output y = x + z\n}\n", "z", ":2:")


def test_unknown_define():
    _, err = run([ZMC, GPT2, "-D", "widht=3", "-o", path("x")], code=1)
    contains(err, "widht", "width")


def test_the_input_is_kept():
    f = write("kept.zm", MLP.encode())
    for args in (["-o", f], ["--emit", "ir", "-o", os.path.join(WORK, ".", "kept.zm")]):
        _, err = run([ZMC, f, *args], code=1)
        contains(err, "would overwrite the input")
    same(read(f), MLP.encode(), "the input before and after")


def pipe(name):
    os.mkfifo(path(name))
    return path(name)


def test_usage():
    for args, parts in (
        ([], ("no input file",)),
        ([GPT2], ("-o",)),
        ([GPT2, "-o"], ("-o", "value")),
        ([GPT2, "--nonsense", "-o", "x"], ("--nonsense",)),
        (["/does/not/exist.zm", "-o", path("x")], ("/does/not/exist.zm", "No such file")),
        ([GPT2, "--precision", "fp7", "-o", path("x")], ("fp7",)),
        ([GPT2, "--precision", "bf16", "--target", "cuda:sm_75", "--emit", "kernels"], ("GPUs of sm_75 have no bf16", "sm_80", "--precision fp16")),
        ([GPT2, "--memory", "lots", "-o", path("x")], ("lots",)),
        ([GPT2, *defines(SMALL), "-o", "/does/not/exist/out"], ("/does/not/exist/out",)),
        ([GPT2, *defines(SMALL), "--cpu", "i386", "-o", path("x")], ("i386",)),
        (["plan", GPT2, "--html", path("x"), "--json"], ("--html", "--json")),
        (["plan", GPT2, "--csv", "--json"], ("--json and --csv", "choose one")),
        ([GPT2, *defines(SMALL), "--grad-dtype", "low", "-o", path("x")], ("--grad-dtype low: with --precision fp32", "bf16 or fp16")),
        ([GPT2, *defines(SMALL), "--print-ir-after", "nope", "-o", path("x")], ("pass 'nope' is not run", "canon, cse, autodiff, loss_scale, dce, chunk_loss")),
        ([GPT2, *defines(SMALL), "--accumulate", 2**32 + 1, "-o", path("x")], ("--accumulate takes at most 1048576",)),
        ([GPT2, "--ranks", "0", "-o", path("x")], ("--ranks takes a positive integer, not '0'",)),
        ([GPT2, "--ranks", "2..x", "-o", path("x")], ("--ranks takes a positive integer, not 'x'",)),
        ([GPT2, "--ranks", "4..2", "-o", path("x")], ("--ranks 4..2 ends before it begins", "choose one number here; zmc plan takes --ranks 2..4")),
        ([GPT2, "--ranks", "65537", "-o", path("x")], ("--ranks takes at most 65536, not 65537",)),
        ([GPT2, "--ranks", "1..4", "-o", path("x")], ("a range of --ranks compares plans", "zmc plan takes it")),
        ([GPT2, "--ranks", "4", "--zero", "all", "-o", path("x")], ("--zero all compares plans", "zmc plan takes it")),
        ([GPT2, "--zero", "4", "-o", path("x")], ("--zero takes 0|1|2|3, not '4'",)),
        (["plan", GPT2, "--zero", "4"], ("--zero takes 0|1|2|3|all, not '4'",)),
        (["plan", GPT2, "--ranks", "8..2"], ("--ranks 8..2 ends before it begins", "help: the smaller number comes first: --ranks 2..8")),
        ([GPT2, "--ranks", "2", "--grad-comm", "bf16", "-o", path("x")], ("--grad-comm takes f32|low, not 'bf16'", "help: --precision bf16 --grad-comm low")),
        ([GPT2, "--grad-dtype", "fp16", "-o", path("x")], ("--grad-dtype takes f32|low, not 'fp16'", "help: --precision fp16 --grad-dtype low")),
        ([GPT2, "--ranks", "2", "--grad-comm", "f64", "-o", path("x")], ("--grad-comm takes f32|low, not 'f64'", "zmc --help")),
        (["plan", GPT2, "--ranks", "1..4", "--vs", GPT2], ("a range of --ranks with --vs",)),
        (["plan", GPT2, "--ranks", "4", "--zero", "all", "--dump-dir", path("d")], ("--zero all with --dump-dir",)),
        ([GPT2, "--ranks", "2", "--grad-comm", "low", "-o", path("x")], ("--grad-comm low: with --precision fp32", "bf16 or fp16")),
        ([GPT2, "--ranks", "2", "--zero", "1", "--zero2-reduce", "step", "-o", path("x")], ("--zero2-reduce step with --zero 1", "--zero 2 or 3")),
        ([GPT2, "--ranks", "2", "--zero", "2", "--persist-below", "4KiB", "-o", path("x")], ("--persist-below with --zero 2", "--zero 3")),
        ([GPT2, "--ranks", "2", "--max-gathered-bytes", "4KiB", "-o", path("x")], ("--max-gathered-bytes with --zero 0", "--zero 3")),
        (["run", "-n", 1], ("OUT is missing", "usage: zmc run -n N [--restarts K] OUT")),
        (["run"], ("-n N is missing", "usage")),
        (["run", "--restarts", 0, "x"], ("-n N is missing", "usage")),
        (["run", "-n"], ("-n needs a value", "usage")),
        (["run", "--ranks", 2, "x"], ("unknown option --ranks", "usage")),
        *((["run", "-n", n, "x"], (f"-n takes a whole number from 1 on, not '{n}'", "usage")) for n in ("0", "two", "-1", "9999999999999999999")),
        (["run", "-n", 1, "--restarts", "x", "y"], ("--restarts takes a whole number from 0 on, not 'x'", "usage")),
        (["run", "-n", 2, "/does/not/exist"], ("cannot run /does/not/exist",)),
        (["run", "-n", 1, "--restarts", 3, "x"], ("--restarts goes on from the checkpoints", "--save DIR")),
        (["run", "-n", 1, "--restarts", 0, "/does/not/exist"], ("cannot run /does/not/exist",)),
        ([GPT2, *defines(SMALL), "-o", pipe("pipe")], ("pipe", "not a regular file")),
    ):
        _, err = run([ZMC, *args], code=1)
        contains(err, *parts)


def test_what_a_compilation_says_last():
    """What was made and for whom, behind the warnings."""
    for args, parts in ((("--zero", 1), ("without --ranks", " distinct), arena ")), (("--ranks", 2, "--zero", 3), (" distinct), 2 ranks, zero 3, each: arena ",))):
        _, err = run([ZMC, GPT2, *defines(SMALL), *args, "-o", path("last")])
        last = err.splitlines()[-1]
        assert last.startswith("gpt2: ") and last.endswith(f"-> {path('last')}"), err
        contains(last, parts[-1])
        same(err.count(parts[0]), 1, f"times that it says {parts[0]}")


def test_help():
    out, _ = run([ZMC, "--help"])
    contains(out, "zmc run -n N [--restarts K] OUT", "exit codes: 0 ", "3 over --memory")


def test_help_of_run():
    for option in ("--help", "-h"):
        out, err = run([ZMC, "run", option])
        contains(out, "usage: zmc run -n N [--restarts K] OUT", "--restarts K  after a failure")
        same(err, "", "stderr and nothing")


def test_long_lines():
    """A file that is no text is not printed as a whole."""
    _, err = run([ZMC, write("noise.zm", bytes(range(1, 256)).replace(b"\n", b"") * 400), "-o", path("x")], code=1)
    assert len(err) < 20000, len(err)


def test_output_over_input():
    exe = compile_model()
    folder = path("shards")
    os.makedirs(folder)
    data = write("shards/a", read(tokens()))
    for args in (["--metrics", data], ["--profile", data], ["--dump-grads", data], ["--export", data], ["--metrics", path("shards/m")]):
        source = folder if args[1].endswith("m") else data
        _, err = run([exe, "--steps", 1, "--data", source, *args], code=1)
        contains(err, f"cannot write {args[1]}: the run reads", "another name")
        _, err = run([exe, "--steps", 0, "--eval-data", source, *args], code=1)
        contains(err, f"cannot write {args[1]}: the run reads")
    same(read(data), read(tokens()), "data after refused runs")
    train(exe, 0, "--export", path("w.st"))
    train(exe, 1, "--load", path("w.st"), "--export", path("w.st"))


def test_data():
    exe = compile_model()
    data = tokens()
    for args, parts in (
        (["--data", "/does/not/exist"], ("/does/not/exist",)),
        (["--data", write("short", b"x" * 17)], ("short", "17", "18")),
        (["--order", "sequential", "--data", write("range", bytes(range(20)) + b"\xff" + bytes(range(250)))], ("range", "token 255", "position 20", "251")),
        (["--data", write("odd", b"xyz" * 101), "--dtype", "u16"], ("odd",)),
        (["--data", data, "--metrics", "/does/not/exist/m"], ("/does/not/exist/m",)),
        (["--data", data, "--export", "/does/not/exist/w"], ("/does/not/exist/w",)),
        (["--data", data, "--nonsense"], ("--nonsense",)),
        (["--data", data, "--resume", path("nothing")], ("nothing",)),
        ([], ("--data",)),
    ):
        _, err = run([exe, "--steps", 2, *args], code=1)
        contains(err, *parts)


def test_weights():
    exe = compile_model()
    train(exe, 0, "--export", path("good.st"))
    good = safetensors(path("good.st"))
    wte = good["wte.weight"]
    raw = read(path("good.st"))
    one_less = {k: v for k, v in good.items() if k != "ln_f.bias"}
    wrong = {**one_less, "wte.weight": (wte[0], [wte[1][1], wte[1][0]], wte[2]), "stranger": ("F32", [1], b"\0\0\0\0")}
    _, err = run([exe, "--data", tokens(), "--steps", 1, "--load", write_safetensors("wrong.st", wrong)], code=1)
    contains(err, "ln_f.bias", "wte.weight", "stranger")
    for name, data in (
        ("truncated", raw[: len(raw) // 2]),
        ("header", raw[:5]),
        ("empty", b""),
        ("huge", struct.pack("<Q", 2**60) + raw[8:]),
        ("json", struct.pack("<Q", 16) + b"{not json at all" + raw),
    ):
        _, err = run([exe, "--data", tokens(), "--steps", 1, "--load", write(name + ".st", data)], code=1)
        contains(err, name + ".st")


def test_bad_checkpoint_is_passed_over():
    exe = compile_model()
    train(exe, 4, "--save", path("two"), "--save-every", 2)
    steps = sorted(os.listdir(path("two")))
    assert steps == ["step-00000002", "step-00000004"], steps
    newest = os.path.join(path("two"), steps[-1])
    for name in os.listdir(newest):
        f = os.path.join(newest, name)
        if os.path.getsize(f) > 4096:
            data = bytearray(read(f))
            data[len(data) // 2] ^= 1
            write(os.path.relpath(f, WORK), bytes(data))
    _, err = run([exe, "--data", tokens(), "--steps", 6, "--resume", path("two"), "--metrics", path("r.jsonl")])
    contains(err, "\n  step-00000004: ", " is damaged: ")
    same(metrics(path("r.jsonl"))[0]["step"], 2, "first step after the good checkpoint")


def test_checkpoint_of_another_model():
    train(compile_model(), 1, "--save", path("small"))
    _, err = run([compile_model(d={**SMALL, "width": 42}), "--data", tokens(), "--steps", 2, "--resume", path("small")], 1)
    contains(err, "is of another model; nothing was loaded", "param/wte.weight: [251, 39] in the checkpoint, [251, 42] in the program")


def test_few_samples_are_warned():
    exe = compile_model()
    few, enough = write("few", read(tokens())[: 3 * SMALL["T"] + 1]), write("enough", read(tokens())[: 4 * SMALL["T"] + 1])
    _, err = run([exe, "--data", few, "--steps", 3])
    contains(err, f"warning: --data {few} holds 3 samples, a step takes 4: samples repeat within a step")
    same(err.count("warning"), 1, "warnings, and 1:")
    _, err = run([exe, "--data", enough, "--steps", 3])
    assert "warning" not in err, err


def test_replicas_of_one_rank_are_warned():
    _, err = run([compile_model(), "--data", tokens(), "--steps", 2, "--check-replicas", 1])
    contains(err, "warning: --check-replicas compares ranks, and this run has one")


def test_new_run_into_an_old_directory_is_warned():
    exe = compile_model()
    train(exe, 3, "--save", path("used"))
    _, err = run([exe, "--data", tokens(), "--steps", 1, "--seed", 9, "--save", path("used")])
    contains(err, "warning", "used", "step 3")
    _, err = run([exe, "--data", tokens(), "--steps", 4, "--resume", path("used"), "--save", path("used")])
    assert "warning" not in err, err


def test_full_disk_keeps_the_previous_checkpoint():
    exe = compile_model()
    train(exe, 2, "--save", path("disk"))
    before = {f: read(os.path.join(path("disk"), "step-00000002", f)) for f in os.listdir(os.path.join(path("disk"), "step-00000002"))}

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    _, err = run([exe, "--data", tokens(), "--steps", 4, "--resume", path("disk"), "--save", path("disk")], code=2, preexec_fn=small_files)
    contains(err, "disk")
    after = {f: read(os.path.join(path("disk"), "step-00000002", f)) for f in before}
    same(before, after, "files of the previous checkpoint")
    same(train(exe, 3, "--resume", path("disk"))[0]["step"], 2, "first step from it")


def test_nan_ends_the_run():
    """Weights that overflow: every step is skipped, nothing changes, and the run ends with the tensor and its line."""
    exe = compile_model()
    train(exe, 0, "--export", path("g.st"))
    w = safetensors(path("g.st"))
    d, s, b = w["h.1.mlp.c_fc.weight"]
    w["h.1.mlp.c_fc.weight"] = (d, s, struct.pack("<f", float("inf")) + b[4:])
    m = train(exe, 150, "--load", write_safetensors("inf.st", w), code=2)
    assert len(m) == 100 and all(x["skipped"] for x in m) and m[-1]["update"] == 0, (len(m), m[-1])
    assert all(x["loss"] is None for x in m)
    _, err = run([exe, "--data", tokens(), "--steps", 150, "--load", path("inf.st")], code=2)
    contains(err, "gpt2.zm:")


def test_signals():
    exe = compile_model()
    for sig, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        m = path("sig.jsonl")
        if os.path.exists(m):
            os.unlink(m)
        p = subprocess.Popen([exe, "--data", tokens(), "--steps", "1000000", "--metrics", m, "--save", path(f"sig{code}")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (os.path.exists(m) and len(read(m).splitlines()) > 3):
            time.sleep(0.01)
            assert p.poll() is None
        p.send_signal(sig)
        same(p.wait(60), code, "exit code")
        done = metrics(m)[-1]["step"] + 1
        same(os.listdir(path(f"sig{code}")), [f"step-{done:08d}"], "checkpoints")


main()
