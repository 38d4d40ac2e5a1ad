"""What an executable knows of its own ops: --audit-numerics, and the op inside a kernel that first makes a number that is not finite."""
import math

from zmtest import *

MODEL = write("audit.zm", b"""dim B = 2
model audit(x: [B, 64], y: [B, 64]) {
  param w: [64] = ones
  let small = x * 1e-20
  let tiny = small * small
  let large = x * 1e30
  let z = x + w
  loss mse(z + tiny + large * 1e-30, y)
}
train { optimizer sgd(lr = 0.1) }
""")


def data(value=1.0, n=4):
    x = [value * (1 + i / (64 * n)) for i in range(64 * n)]
    return write_safetensors(f"x{value}.safetensors", {k: ("F32", [n, 64], struct.pack(f"<{64 * n}f", *x)) for k in ("x", "y")})


def rows(out):
    """{(line, phase, dtype): {numbers, error, of, underflow, headroom, nonfinite}} of the table."""
    table = {}
    for line in out.splitlines()[2:]:
        w = line.split()
        place, phase, dtype, numbers, error, of, under, head, bad = w
        table[(place, phase, dtype)] = {"numbers": int(numbers), "error": float(error), "of": of, "underflow": float(under.rstrip("%")), "headroom": head,
                                        "nonfinite": int(bad)}
    return table


def test_table():
    out, _ = run([compile_model(MODEL, {}), "--data", data(), "--order", "sequential", "--steps", 2, "--audit-numerics", "--metrics", path("a.jsonl")])
    contains(out, "numerics of step 0", "rel. error", "underflow", "headroom")
    t = rows(out)
    small, tiny, large = (t[(f"audit.zm:{n}", "forward", "f32")] for n in (4, 5, 6))
    same((small["underflow"], small["nonfinite"]), (0, 0), "products of 1e-20")
    same(tiny["underflow"], 100, "squares of 1e-20: all below the smallest normal f32")
    if not 1e-7 < tiny["error"] < 1:  # 1e-40 keeps 16 bits of 24
        raise AssertionError(f"the error of subnormal numbers: {tiny['error']}")
    if not small["error"] < 2**-24 * 1.01:
        raise AssertionError(f"the error of one rounding: {small['error']}")
    same(large["headroom"], f"{math.log2((2 - 2**-23) * 2.0**127 / (1e30 * (1 + 127 / 256))):.1f}", "headroom of the largest x * 1e30 of two samples")
    same(("audit.zm:3", "update", "f32") in t, True, "a row for the update")
    same(any(k[1] == "backward" for k in t), True, "a row for the backward")


def test_same_run():
    """Looking changes nothing; all micro-batches and in-place kernels are looked at."""
    extra = ["--accumulate", "2"]
    exe = compile_model(extra=extra)
    plain = train(exe, 3)
    m = path("b.jsonl")
    out, _ = run([exe, "--data", tokens(), "--steps", 3, "--metrics", m, "--audit-numerics"])
    same(metrics(m), plain, "metrics with and without --audit-numerics")
    for key, r in rows(out).items():
        if r["error"] > 1e-5 or r["nonfinite"]:  # f32: sums of some thousand terms
            raise AssertionError(f"{key}: {r}")


def test_op_inside_a_kernel():
    model = write("inside.zm", b"""dim B = 2
model inside(x: [B, 64], y: [B, 64]) {
  param w: [64] = ones
  let up = exp(x * w)
  let share = up / (up + 1)
  loss mse(share, y)
}
train { optimizer sgd(lr = 0.1) }
""")
    exe = compile_model(model, {})
    out, err = run([exe, "--data", data(100.0), "--steps", 1, "--check-numerics"], 2)
    contains(err, "first number that is not finite", "first in this kernel: ", "inside.zm:4:12: element ", " of the result of exp, f32, is inf")
    run([exe, "--data", data(1.0), "--steps", 1, "--check-numerics"])


def test_poisoned():
    """--poison ends a buffer's life after the audit has read it: the same table."""
    exe = compile_model(MODEL, {})
    plain, _ = run([exe, "--data", data(), "--steps", 1, "--audit-numerics"])
    poisoned, _ = run([exe, "--data", data(), "--steps", 1, "--audit-numerics", "--poison"])
    same(poisoned, plain, "audit of a poisoned run")


def test_no_step():
    _, err = run([compile_model(MODEL, {}), "--data", data(), "--steps", 0, "--audit-numerics"], 1)
    contains(err, "--audit-numerics looks at a step, but --steps 0 leaves none to run")


if __name__ == "__main__":
    main()
