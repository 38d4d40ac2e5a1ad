"""fp16 gradients that underflow: a dynamic loss scale trains as f32 does, scale 1 does not train at all."""
import random

from zmtest import *

# d loss / d h is about 2 * 0.05 / 4096 * 2^-18 = 2^-33; the smallest fp16 is 2^-24.
MODEL = write("under.zm", b"""dim B = 64, n = 64
model under(x: [B, n], y: [B, n]) {
  param w: [n, n] = normal(2500)
  let h = x @ w
  loss mse(h * 3.814697265625e-06, y)
}
train { optimizer adamw(lr = 200, eps = 1e-14, decay = 0) }
""")
STEPS = 40


def data():
    r = random.Random(1)
    n = 64 * 64
    x, y = [r.uniform(-1, 1) for _ in range(n)], [r.uniform(-0.05, 0.05) for _ in range(n)]
    return write_safetensors("u.safetensors", {k: ("F32", [64, 64], struct.pack(f"<{n}f", *v)) for k, v in (("x", x), ("y", y))})


def losses(*extra):
    m = train(compile_model(MODEL, {}, extra), STEPS, "--order", "sequential", data=data())
    return [x["loss"] for x in m], m


def test_fp16():
    f32, _ = losses()
    if not f32[-1] < 0.6 * f32[0]:
        raise AssertionError(f"f32 does not learn: {f32}")
    for amp in ("master", "autocast"):
        flags = ["--precision", "fp16", "--amp", amp, "--loss-scale"]
        dead, m = losses(*flags, "1")
        same((set(dead), m[0]["grad_norm"]), ({dead[0]}, 0), f"{amp}: losses with scale 1")
        scaled, m = losses(*flags, "dynamic:init=16777216")
        same([x["skipped"] for x in m], [False] * STEPS, f"{amp}: skipped steps")
        for a, b in zip(scaled, f32):
            close(a, b, 0.01, f"{amp}: losses of fp16 with a dynamic scale and of f32")
        # An S that is too large is halved until the gradient fits: then it learns, too.
        large, m = losses(*flags, "dynamic:init=1e12,hysteresis=1")
        n = sum(x["skipped"] for x in m)
        same([x["skipped"] for x in m], [True] * n + [False] * (STEPS - n), f"{amp}: skipped steps with a scale that is too large")
        if not (0 < n < 30 and large[-1] < f32[STEPS - 1 - n] * 1.01):
            raise AssertionError(f"{amp}: {n} skipped steps, losses {large}")


if __name__ == "__main__":
    main()
