"""tools/bench --scaling on a tiny model: it runs, and its numbers follow from each other.  Nothing about their size."""
import json
import os
import sys

import zmtest as z


def test_scaling():
    out = z.path("scaling.json")
    text, _ = z.run([sys.executable, os.path.join(z.ROOT, "tools", "bench"), "--scaling", "--case", "tiny", "--rounds", 2, "--steps", 2,
                     "--build", z.BUILD, "--json", out])
    with open(out, encoding="utf-8") as f:
        r = json.load(f)["scaling"]
    rows = r["lengths"]["rows"]
    assert [(row["T"], row["B"]) for row in rows] == [(2, 16), (4, 8), (8, 4), (16, 2), (32, 1)], rows
    for row, longer in zip(rows, rows[1:]):
        assert row["flops"] < longer["flops"], rows  # attention's grow with T
    for how in ("minima", "medians"):
        rates = [row["flops"] / row[how]["step_s"] for row in rows]
        far = max(abs(rate / rates[0] - 1) for rate in rates) * 100
        assert abs(r["lengths"]["max_deviation_percent"][how] - far) < 1e-6 * (1 + far) and r["threads"][how] > 0 and r["v3"][how] > 0, r
    assert all(len(t) == 4 for t in r["times_s"].values()) and len(r["limits"]["rounds"]) == 2, r
    assert 0 < r["limits"]["median_percent"] <= r["limits"]["best_percent"], r["limits"]
    for what in ("speed of 2 threads / 1 thread", "x86-64-v3", "deviation of GF/s from T = 2", "sum of limits / step"):
        assert what in text, (what, text)


if __name__ == "__main__":
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        if " avx2 " not in cpuinfo.read():
            print("kernels for x86-64-v3 do not run here")
            sys.exit(77)
    z.main()
