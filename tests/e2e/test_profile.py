"""--profile: the trace covers the steps, and the roofline adds up; peaks come from a file of this machine, or are measured."""
import json
import os
import re
import sys

import zmtest as z

STEPS = 3


def profile(name, peaks):
    exe = z.compile_model()
    env = {**os.environ, "ZMC_PEAKS": peaks}
    args = [exe, "--data", z.tokens(), "--steps", STEPS, "--threads", 2, "--profile", z.path(name)]
    _, err = z.run(args, env=env)
    with open(z.path(name), encoding="utf-8") as f:
        return json.load(f)["traceEvents"], err


def test_table_and_trace():
    events, err = profile("trace.json", z.path("no such file"))
    assert "measured in a second" in err, err
    assert len(events) % STEPS == 0 and events
    for e in events:
        assert e["ph"] == "X" and e["dur"] >= 0 and e["args"]["loc"], e
        assert len(e["args"]["reads"]) % 2 == 0 and len(e["args"]["writes"]) % 2 == 0, e
    products = [e for e in events if "matmul" in e["args"]["kernel"]]
    assert products and all(re.search(r"gpt2\.zm:\d+:\d+$", e["args"]["loc"]) and e["args"]["flops"] > 0 for e in products)
    rows = [line.split() for line in err.splitlines() if line.endswith("%")]
    calls = sum(int(r[-8]) for r in rows)
    assert calls == len(events) // STEPS, err
    assert abs(sum(float(r[-6].rstrip("%")) for r in rows) - 100) < 0.1 * len(rows), err
    assert re.search(r"sum of limits \d+\.\d+ ms = \d+\.\d % of it", err), err


def test_bytes_of_what_is_read():
    """The norm is summed in chunks, and what is left behind them by a kernel for all buckets: together they read each once."""
    events, _ = profile("t3.json", z.path("no such file"))
    parts = [e["args"] for e in events[:len(events) // STEPS] if e["args"]["kernel"] == "all_finite+sum_squares"]
    buckets = {}
    for p in parts:
        for name, n in zip(p["reads"][::2], p["reads"][1::2]):
            buckets[name] = max(n, buckets.get(name, 0))
    written = sum(n for p in parts for n in p["writes"][1::2])
    assert len(parts) == 2 and len(buckets) == 2, parts
    assert sum(buckets.values()) <= sum(p["bytes"] for p in parts) - written <= sum(buckets.values()) + 64, parts


def test_peaks_of_another_machine():
    other = z.write("other.json", b'{"cpu":"another","threads":2}')
    _, err = profile("t2.json", other)
    assert f"measured in a second before the first step: {other} is not of this CPU, this number of threads and this version" in err, err


def test_bench_without_a_build():
    _, err = z.run([sys.executable, os.path.join(z.ROOT, "tools", "bench"), "--peaks", "--build", z.path("nothing")], code=1)
    assert err.startswith("bench: no zmc in ") and "build it first" in err, err


def test_stored_peaks():
    out, _ = z.run([os.path.join(z.BUILD, "zm-peaks"), 2, 0])
    stored = json.loads(out)
    assert stored["threads"] == 2 and all(stored[k] > 0 for k in stored if k not in ("cpu", "threads")), out
    _, err = profile("t.json", z.write("peaks.json", json.dumps({**stored, "flops": 123e9}).encode()))
    assert "123.0 GF/s" in err and f"from {z.path('peaks.json')}" in err, err
    for other in ({"cpu": "another"}, {"threads": 3}, {"flops": 0}, {"read_bytes_s": "fast"}):
        _, err = profile("t.json", z.write("other.json", json.dumps({**stored, **other}).encode()))
        assert "measured in a second" in err, (other, err)
    for text in (b"", b"{", b"[]"):
        _, err = profile("t.json", z.write("bad.json", text))
        assert "measured in a second" in err, (text, err)


if __name__ == "__main__":
    z.main()
