"""Loss scaling through compiled executables: the traces of published scalers (docs/precision.md), the unscaled update, the
run's ends, resuming, and what the command line refuses."""
import random

from zmtest import *

TINY = write("tiny.zm", b"""dim B = 2
model tiny(x: [B, 3], y: [B, 3]) {
  param w: [3, 3] = normal(0.5)
  loss mse(x @ w, y)
}
train { optimizer adamw(lr = 0.1) }
""")
N_SAMPLES = 96


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


def data(bad_steps=()):
    """x and y for --order sequential; an infinity in the samples of bad_steps."""
    x = [[(37 * (3 * s + i) % 11 - 5) / 7 for i in range(3)] for s in range(N_SAMPLES)]
    for step in bad_steps:
        x[2 * step][1] = float("inf")
    y = [(31 * i % 13 - 6) / 7 for i in range(3 * N_SAMPLES)]
    name = "d%s.safetensors" % "-".join(["", *map(str, bad_steps)])[:80]
    return write_safetensors(name, {"x": ("F32", [N_SAMPLES, 3], floats(sum(x, []))), "y": ("F32", [N_SAMPLES, 3], floats(y))})


DATA = data()


def executable(scale, *extra):
    return compile_model(TINY, {}, ["--loss-scale", scale, *extra])


def run_tiny(scale, steps, *args, code=0, name="m.jsonl", extra=()):
    m = path(name)
    out = run([executable(scale, *extra), *(() if "--data" in args else ("--data", DATA)), "--order", "sequential", "--steps", steps, "--metrics", m, *args], code)
    return metrics(m), out[1]


def faults(pattern):
    """o: the step overflows."""
    at = ",".join(f"nonfinite@{i}" for i, c in enumerate(pattern) if c == "o")
    return ["--fault", at] if at else []


def check_trace(scale, pattern, init, next_scales, hysteresis=None):
    m, _ = run_tiny(scale, len(pattern), *faults(pattern))
    same([x["loss_scale_next"] for x in m], next_scales, f"{scale}: scales after {pattern}")
    same([x["loss_scale"] for x in m], [init, *next_scales[:-1]], f"{scale}: scales used by {pattern}")
    same([x["skipped"] for x in m], [c == "o" for c in pattern], f"{scale}: skipped steps of {pattern}")
    same([x["update"] for x in m], [i + 1 - pattern[:i + 1].count("o") for i in range(len(pattern))], f"{scale}: updates of {pattern}")
    if hysteresis:
        same([x["hysteresis_next"] for x in m], hysteresis, f"{scale}: hysteresis after {pattern}")


VECTOR_A = "ooo.........o.o....."


def test_vector_a():
    k = 1024
    check_trace("dynamic:window=4", VECTOR_A, 64 * k, [64 * k, 32 * k] + [16 * k] * 5 + [32 * k] * 4 + [64 * k] * 3 + [32 * k] * 5 + [64 * k],
                [1] * 7 + [2] * 5 + [1] * 7 + [2])
    check_trace("dynamic:init=65536,window=4,consecutive=1", VECTOR_A, 64 * k,
                [64 * k, 32 * k] + [16 * k] * 5 + [32 * k] * 4 + [64 * k] * 8 + [128 * k], [1] * 3 + [2] * 9 + [1, 2, 1] + [2] * 5)
    check_trace("dynamic:window=4,rule=gradscaler", VECTOR_A, 64 * k,
                [32 * k, 16 * k] + [8 * k] * 4 + [16 * k] * 4 + [32 * k] * 2 + [16 * k] * 2 + [8 * k] * 4 + [16 * k] * 2)


def test_vector_b():
    m, err = run_tiny("dynamic:init=4,window=4", 10, *faults("oooooooooo"), code=2)
    same([(x["loss_scale_next"], x["hysteresis_next"]) for x in m], [(4, 1), (2, 1), (1, 1), (1, 1)], "vector B")
    contains(err, "step 3 overflowed at the least loss scale, 1, with no hysteresis left", "gradient of w[0] = inf", "tiny.zm:4:12")
    check_trace("dynamic:init=4,window=4,rule=gradscaler", "oooo", 4, [2, 1, 0.5, 0.25])


def test_vector_c():
    m, err = run_tiny("dynamic:init=2,window=4", 10, *faults("o.o.o....."), code=2)
    same([(x["loss_scale_next"], x["hysteresis_next"]) for x in m], [(2, 1), (2, 1), (1, 1), (1, 1), (1, 1)], "vector C")
    contains(err, "step 4 overflowed at the least loss scale")


def test_vector_d():
    check_trace("dynamic:init=1,window=4", "." * 10, 1, [1, 1, 1, 1, 2, 2, 2, 2, 4, 4])
    check_trace("dynamic:init=1,window=4,rule=gradscaler", "." * 10, 1, [1, 1, 1, 2, 2, 2, 2, 4, 4, 4])


def plain_scaler(rule, init, window, hysteresis, consecutive, least):
    """A generator as DeepSpeed's and PyTorch's scalers are written: takes overflow, gives (scale, hysteresis)."""
    scale, left, it, last, tracker = init, hysteresis, 0, -1, 0
    overflow = yield
    while True:
        if rule == "gradscaler":
            tracker = 0 if overflow else tracker + 1
            scale = scale / 2 if overflow else scale * 2 if tracker == window else scale
            tracker %= window
        elif overflow:
            if hysteresis == 1 or left == 1:
                scale = max(scale / 2, least)
            else:
                left -= 1
            last = it
        else:
            if consecutive:
                left = hysteresis
            stable = it - last - 1
            if stable > 0 and stable % window == 0:
                left = hysteresis
                scale *= 2
        it += 1
        overflow = yield scale, left


def test_random_patterns():
    rng = random.Random(6)
    for k in range(8):
        rule = ["deepspeed", "gradscaler"][k % 2]
        s = {"init": 2.0 ** rng.randrange(4, 18), "window": rng.randrange(1, 5), "hysteresis": rng.randrange(1, 4), "consecutive": rng.randrange(2), "least": 2.0 ** -40}
        bad = [i for i in range(48) if rng.random() < 0.4]
        text = f"dynamic:init={s['init']},window={s['window']},rule={rule}"
        if rule == "deepspeed":
            text += f",hysteresis={s['hysteresis']},consecutive={s['consecutive']},min={s['least']!r}"
        m, _ = run_tiny(text, 48, "--data", data(bad))
        model = plain_scaler(rule, **s)
        next(model)
        want = [model.send(i in bad) for i in range(48)]
        same([x["loss_scale_next"] for x in m], [w[0] for w in want], f"{text}: scales, overflows at {bad}")
        if rule == "deepspeed":
            same([x["hysteresis_next"] for x in m], [w[1] for w in want], f"{text}: hysteresis, overflows at {bad}")


def test_update_is_unscaled():
    """A power of two changes no bit, also in steps in which the scale grows."""
    numbers = []
    for k, scale in enumerate(("1", "1024", "dynamic:init=64,window=1", "dynamic:init=64,window=3,rule=gradscaler")):
        for args in ((), ("--accumulate", "3")):
            w = path(f"w{k}.safetensors")
            m, _ = run_tiny(scale, 12, "--export", w, extra=args)
            numbers.append((args, [(x["loss"], x["grad_norm"], x["lr"]) for x in m], read(w)))
            if k >= 2 and m[-1]["loss_scale_next"] <= 64:
                raise AssertionError(f"{scale} did not grow")
    for args, *n in numbers:
        same(n, [list(x[1:]) for x in numbers if x[0] == args][0], f"runs with {args}")


def test_dump_grads_are_unscaled():
    dumps = []
    for scale in ("1", "dynamic:init=4096"):
        g = path("g.safetensors")
        run_tiny(scale, 1, "--dump-grads", g)
        dumps.append(safetensors(g))
    same(dumps[0], dumps[1], "gradients")


def test_resume():
    scale = "dynamic:init=1024,window=2"
    whole, _ = run_tiny(scale, 14, *faults("..o..o.......o"))
    save = path("save")
    first, _ = run_tiny(scale, 7, *faults("..o..o."), "--save", save)
    second, _ = run_tiny(scale, 14, *faults("..o..o.......o"), "--resume", save, name="m2.jsonl")
    same(first + second, whole, "a run in one piece and a resumed one")
    # The scaler's state stays behind where the scale is another's.
    m, _ = run_tiny("8", 9, "--resume", save, name="m3.jsonl")
    same([(x["loss_scale"], x["loss_scale_next"]) for x in m], [(8, 8)] * 2, "a static scale after a dynamic one")
    static = path("static")
    run_tiny("8", 3, "--save", static)
    m, _ = run_tiny("dynamic:init=512", 4, "--resume", static, name="m4.jsonl")
    same(m[0]["loss_scale"], 512, "a dynamic scale after a static one: its first scale")


def test_hundred_skips():
    m, err = run_tiny("dynamic:rule=gradscaler", 300, "--data", data(range(48)), code=2)
    same(len(m), 100, "steps before the end")
    contains(err, "100 steps in a row were skipped, the last is step 99; first number that is not finite: ", "tiny.zm:4:12")
    assert "65504" not in err and "-nan" not in err, err


def test_overflow_of_fp16():
    """The message says what fp16 holds and what to do about it."""
    _, err = run_tiny("dynamic:init=2,hysteresis=1", 300, "--data", data(range(48)), code=2, extra=("--precision", "fp16"))
    contains(err, "at the least loss scale, 1,", "f16, is inf", "65504, the largest fp16: keep it in f32", "--precision bf16")


def test_nothing_to_learn_is_no_overflow():
    """A step without targets is skipped, and the scaler stands still."""
    model = write("ignore.zm", b"""dim B = 2, V = 5
model m(x: [B, 3], y: int[B]) {
  param w: [3, V] = normal(0.5)
  loss cross_entropy(x @ w, y, ignore = -1)
}
train { optimizer sgd(lr = 0.1) }
""")
    y = [3, 1, -1, -1, 0, 4, -1, 2]
    d = write_safetensors("i.safetensors", {"x": ("F32", [8, 3], floats([0.5] * 24)), "y": ("I32", [8], struct.pack("<8i", *y))})
    exe = compile_model(model, {}, ["--loss-scale", "dynamic:init=16,window=2,hysteresis=1"])
    m = train(exe, 4, "--order", "sequential", data=d)
    same([x["skipped"] for x in m], [False, True, False, False], "skipped")
    same([x["loss_scale_next"] for x in m], [16, 16, 16, 32], "scales")


def test_gpt2():
    """Through chunked loss, accumulation and clipping."""
    text = tokens()
    extra = ["--accumulate", "2", "--loss-chunk-bytes", "20000"]
    plain = train(compile_model(extra=extra), 6, data=text)
    scaled = train(compile_model(extra=[*extra, "--loss-scale", "dynamic:init=65536,window=1"]), 6, data=text)
    keys = ("loss", "grad_norm", "lr", "update")
    same([[x[k] for k in keys] for x in plain], [[x[k] for k in keys] for x in scaled], "runs with and without a scale")
    same([x["loss_scale"] for x in scaled], [2.0 ** 16, 2.0 ** 16, 2.0 ** 17, 2.0 ** 18, 2.0 ** 19, 2.0 ** 20], "scales")


def test_refused():
    for scale, why in (("0", "must be a positive number"), ("-1", "must be a positive number"), ("nan", "neither a number nor dynamic"), ("inf", "neither a number"),
                       ("1e400", "must be a positive number"), ("1e-40", "must be a positive number"), ("", "neither a number"), ("12x", "neither a number"),
                       ("dynamics", "neither a number"), ("dynamic:", "'' is not key=value"), ("dynamic:size=1", "unknown setting 'size'"),
                       ("dynamic:window=0", "window must be an integer from 1"), ("dynamic:window=1.5", "window takes an integer, not '1.5'"),
                       ("dynamic:window=99999999999", "window must be an integer from 1"), ("dynamic:hysteresis=0", "hysteresis must be"),
                       ("dynamic:init=1,min=2", "min = 2 is larger than init = 1"), ("dynamic:init=nan", "init takes a number, not 'nan'"), ("dynamic:init=0", "init must be a positive"),
                       ("dynamic:min=0", "min must be a positive"), ("dynamic:consecutive=2", "consecutive takes 0 or 1"), ("dynamic:rule=apex", "rule takes deepspeed or gradscaler"),
                       ("dynamic:window=4,window=5", "window is given twice"), ("dynamic:window=4,", "'' is not key=value")):
        _, err = run([ZMC, TINY, "-o", path("never"), "--loss-scale", scale], 1)
        contains(err, f"error[E0801]: --loss-scale {scale}: ", why, "help: --loss-scale takes a number above 0")
    _, err = run([ZMC, TINY, "-o", path("warned"), "--loss-scale", "dynamic:rule=gradscaler,hysteresis=2"])
    contains(err, "warning", "rule gradscaler has no hysteresis")


if __name__ == "__main__":
    main()
