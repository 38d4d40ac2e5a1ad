"""bench_jax.py -- the JAX peer of tools/bench: GPT-2 in f32 with AdamW and clipping under one jit, driven as bench_torch.py."""
import json
import os
import resource
import sys
import time

config = json.loads(sys.argv[1])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config["threads"]])  # XLA takes every CPU it may use

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

LR, B1, B2, EPS, DECAY = 6e-4, 0.9, 0.95, 1e-8, 0.1


def init(c, key):
    width, keys = c["width"], iter(jax.random.split(key, 4 * c["layers"] + 2))
    normal = lambda *shape: 0.02 * jax.random.normal(next(keys), shape)  # noqa: E731
    norm = lambda: {"w": jnp.ones(width), "b": jnp.zeros(width)}  # noqa: E731
    linear = lambda n, m: {"w": normal(n, m), "b": jnp.zeros(m)}  # noqa: E731
    layers = [{"ln_1": norm(), "attn": linear(width, 3 * width), "proj": linear(width, width), "ln_2": norm(),
               "fc": linear(width, 4 * width), "out": linear(4 * width, width)} for _ in range(c["layers"])]
    return {"wte": normal(c["vocab"], width), "wpe": normal(c["ctx"], width), "h": layers, "ln_f": norm()}


def normalize(x, p):
    d = x - x.mean(-1, keepdims=True)
    return d * jax.lax.rsqrt((d * d).mean(-1, keepdims=True) + 1e-5) * p["w"] + p["b"]


def apply(x, p):
    return x @ p["w"] + p["b"]


def attend(c, x, p):
    b, t, width = x.shape
    q, k, v = (y.reshape(b, t, c["heads"], -1) for y in jnp.split(apply(x, p), 3, -1))
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(b, t, width)


def loss(p, c, x, y):
    e = p["wte"][x] + p["wpe"][: x.shape[1]]
    for h in p["h"]:
        e = e + apply(attend(c, normalize(e, h["ln_1"]), h["attn"]), h["proj"])
        e = e + apply(jax.nn.gelu(apply(normalize(e, h["ln_2"]), h["fc"])), h["out"])
    logits = normalize(e, p["ln_f"]) @ p["wte"].T
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1).mean()


def train(c, state, x, y):
    p, m, v, t = state
    value, g = jax.value_and_grad(loss)(p, c, x, y)
    norm = jnp.sqrt(sum(jnp.vdot(a, a) for a in jax.tree.leaves(g)))
    scale, t = jnp.minimum(1, 1 / (norm + 1e-6)), t + 1
    m = jax.tree.map(lambda a, b: B1 * a + (1 - B1) * scale * b, m, g)
    v = jax.tree.map(lambda a, b: B2 * a + (1 - B2) * (scale * b) ** 2, v, g)
    update = lambda a, b, d: a * (1 - LR * DECAY) - LR * b / (1 - B1**t) / (jnp.sqrt(d / (1 - B2**t)) + EPS)  # noqa: E731
    return (jax.tree.map(update, p, m, v), m, v, t), value


def main():
    c = config
    key = jax.random.PRNGKey(0)
    p = init(c, key)
    state = (p, jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), jnp.float32(0))
    x, y = (jax.random.randint(k, (c["B"], c["T"]), 0, c["vocab"]) for k in jax.random.split(key))
    step = jax.jit(lambda s, x, y: train(c, s, x, y), donate_argnums=0)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            state, value = step(state, x, y)
            value.block_until_ready()
            jax.block_until_ready(state)
            times.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"times": times, "peak": peak}), flush=True)


main()
