"""zmtest.py -- what the end-to-end tests share: compile a model once, run it, read what it wrote.

A test is a file tests/e2e/test_*.py with functions test_*; `python3 tests/e2e/test_x.py BUILD` runs them all and exits non-zero
when one fails.  Only the standard library.
"""
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZMC_BUILD", os.path.join(ROOT, "build")))
ZMC = os.path.join(BUILD, "zmc")
WORK = tempfile.mkdtemp(prefix="zmc-e2e-")
MODELS = os.path.join(ROOT, "models")
GPT2 = os.path.join(MODELS, "gpt2.zm")

# Odd on purpose: a prime vocabulary, sizes that no tile divides.
SMALL = {"layers": 2, "heads": 3, "width": 39, "ctx": 19, "T": 17, "B": 4, "vocab": 251, "warmup": 3, "total": 12, "lr": 2e-3}


def run(args, code=0, **kw):
    """Runs a command; its exit code must be `code`."""
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=300, check=False, **kw)
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode != code:
        raise AssertionError(f"exit code {done.returncode}, not {code}: {' '.join(map(str, args))}\n{out}{err}")
    return out, err


def defines(d):
    return [w for k, v in d.items() for w in ("-D", f"{k}={v}")]


def compile_model(model=GPT2, d=None, extra=()):
    """Path of the executable; the same request is compiled once."""
    args = [model, *defines(SMALL if d is None else d), *extra]
    out = os.path.join(WORK, "exe-" + hashlib.sha256(repr(args).encode()).hexdigest()[:16])
    if not os.path.exists(out):
        run([ZMC, *args, "-o", out])
    return out


def path(name):
    return os.path.join(WORK, name)


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data)
    return path(name)


def read(name):
    with open(name, "rb") as f:
        return f.read()


def tokens(n=4000, vocab=251):
    """A small u8 token file with some structure, made by a fixed recurrence."""
    x, out = 12345, bytearray()
    for i in range(n):
        x = (1103515245 * x + 12345) % 2**31
        out.append((i * 7 + (x >> 16) % 11) % 61 % vocab)
    return write(f"tokens-{n}-{vocab}", bytes(out))


def metrics(name):
    """Step lines of a metrics file, without what depends on the clock."""
    with open(name, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    return [{k: v for k, v in l.items() if k not in ("step_s", "tokens_s")} for l in lines if "loss" in l]


def train(exe, steps, *args, data=None, name="m.jsonl", code=0):
    """Runs a training; returns its step metrics."""
    m = path(name)
    if os.path.exists(m):
        os.unlink(m)
    run([exe, "--data", data or tokens(), "--steps", steps, "--metrics", m, *args], code)
    return metrics(m)


def safetensors(name):
    """{tensor: (dtype, shape, bytes)}"""
    raw = read(name)
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    base = 8 + n
    return {k: (v["dtype"], v["shape"], raw[base + v["data_offsets"][0]:base + v["data_offsets"][1]]) for k, v in head.items() if k != "__metadata__"}


def write_safetensors(name, tensors):
    head, body = {}, b""
    for k, (dtype, shape, data) in tensors.items():
        head[k] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return write(name, struct.pack("<Q", len(text)) + text + body)


def same(a, b, what):
    if a != b:
        raise AssertionError(f"{what} differ")


def close(a, b, rel, what):
    if not abs(a - b) <= rel * max(abs(a), abs(b)):
        raise AssertionError(f"{what}: {a!r} and {b!r} differ by more than {rel} relative")


def contains(text, *parts):
    for p in parts:
        if p not in text:
            raise AssertionError(f"'{p}' is not in:\n{text}")


def main():
    module = sys.modules["__main__"]
    failed = 0
    for name in sorted(n for n in dir(module) if n.startswith("test_")):
        try:
            getattr(module, name)()
            print(f"ok   {name}")
        except Exception:  # a failing test must not hide the others
            failed += 1
            print(f"FAIL {name}")
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    subprocess.run(["rm", "-rf", WORK], check=False)
    sys.exit(1 if failed else 0)
