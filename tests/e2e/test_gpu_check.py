"""tools/gpu-check on the simulator: every part runs or says why not, and what it measures is complete.  Its numbers mean nothing there."""
from gputest import *

GPU_CHECK = os.path.join(ROOT, "tools", "gpu-check")
PARTS = ["machine", "build", "peaks", "compile", "torch", "bench", "profile", "counts", "ranks", "tests"]


def checked(*args, code, out="out"):
    env, report = gpu_env(2)
    _, err = run([sys.executable, GPU_CHECK, "--build", BUILD, "--no-build", "--out", path(out), *args], code, env=env)
    if os.path.exists(report):  # but for the defect that test_rt_device plants
        assert all("kernel far, block" in line for line in read(report).decode().splitlines()), read(report).decode()
    return json.loads(read(os.path.join(path(out), "gpu-check.json"))), read(os.path.join(path(out), "gpu-check.txt")).decode(), err


def test_all_parts():
    r, text, _ = checked("--tests", "^test_rt_device$", code=2)  # PyTorch is not there
    assert r["simulated"] and text.startswith("gpu-check: SIMULATED, sizes are tiny and times mean nothing"), text
    status = {p["name"]: p["status"] for p in r["parts"]}
    same(list(status), PARTS, "parts")
    same([p for p, s in status.items() if s == "done"], ["machine", "peaks", "compile", "bench", "profile", "counts", "ranks", "tests"], "parts that were done")
    same({m["what"] for m in r["missing"]} >= {"torch", "PyTorch beside zmc"}, True, "what could not run")
    assert all(m["why"] for m in r["missing"]), r["missing"]
    assert r["machine"]["sm"] == 80 and r["machine"]["nvrtc"] and r["machine"]["target"] == "cuda:sm_80", r["machine"]
    assert set(r["peaks"]["products"]) == {"f32", "f16", "bf16"} and all(v > 0 for v in [*r["peaks"]["products"].values(), *r["peaks"]["copy"].values()])
    assert set(r["compile"]) == set(r["profile"]["rows"]) == {"bf16", "fp16", "fp32"}
    for precision, rows in r["profile"]["rows"].items():
        assert {row["kind"] for row in rows} == {"matmul", "attention", "update", "other"}, precision
        assert all(row["s"] >= 0 and row["limit_s"] >= 0 and row["calls"] > 0 and row["loc"] for row in rows if row["kernel"] not in ("copy", "zero")), rows
    zmc = r["bench"]["programs"]["zmc"]
    assert zmc["tokens_s"] > 0 and len(zmc["times_s"]) == 1 and len(r["bench"]["losses"]) > 1, zmc
    same(sorted(r["ranks"]["stages"]), ["0", "3"], "stages on two GPUs")
    assert all(v["tokens_s"] > 0 and v["comm_bytes"] > 0 for v in r["ranks"]["stages"].values()), r["ranks"]
    same([(t["name"], t["status"]) for t in r["tests"]], [("test_rt_device", "passed")], "tests")
    bars = {b["bar"]: b["status"] for b in r["bars"]}
    same(len(bars), 8, "bars, and 8:")
    assert sum(s == "not judged" for s in bars.values()) == 6, bars  # of a simulator only counts are judged
    assert r["hardware_only"] and not any(v["ran"] for v in r["hardware_only"]), r["hardware_only"]
    contains(text, "device   gpusim", "What could not run", "What only hardware shows", "Kernels against max(flops / rate, bytes / ")


def test_what_does_not_fit_is_named():
    r, text, _ = checked("--parts", "peaks,tests", "--budget", 2, code=2, out="short")
    status = {p["name"]: p["status"] for p in r["parts"]}
    same(status["tests"], "not run", "tests without time")
    same(status["bench"], "not asked for", "a part that was not asked for")
    contains(text, "none of the 2.0 s was left")


def test_a_test_that_fails_is_told():
    fake = path("fake-build")
    for said, code, status in (("it broke", 1, "failed"), ("no such chip", 77, "skipped"), ("skipped: test_x: one GPU", 0, "passed")):
        os.makedirs(fake, exist_ok=True)
        with open(os.path.join(fake, "test_rt_device"), "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
        os.chmod(f.name, 0o755)
        r, text, _ = checked("--build", fake, "--parts", "tests", "--tests", "^test_rt_device$", code=2 if status == "failed" else 0, out="fake")
        same([(t["name"], t["status"]) for t in r["tests"]], [("test_rt_device", status)], "the test's status")
        contains(text, said)


def test_a_part_alone():
    _, text, _ = checked("--parts", "profile", code=2, out="alone")
    contains(text, "profile: no rates to compare with")


def refused(*args, code=2):
    """Nothing was begun: no report."""
    env, _ = gpu_env()
    _, err = run([sys.executable, GPU_CHECK, "--no-build", "--out", path("refused"), *args], code, env=env)
    assert not os.path.exists(path("refused")), "a report of nothing"
    return err


def test_options_that_cannot_be():
    contains(refused("--build", BUILD, "--target", "foo"), "--target foo: a target is written like cuda:sm_90")
    contains(refused("--build", BUILD, "--target", "cuda:sm_81"), "--target cuda:sm_81: there is no sm_81, but sm_50, ")
    contains(refused("--build", BUILD, "--target", "cuda:sm_999", code=1), "--target cuda:sm_999: this device is sm_", "without --target")
    contains(refused("--build", BUILD, "--target", "cuda:sm_75a", code=1), "--target cuda:sm_75a: this device is sm_")
    nowhere, what_to_do = path("nowhere"), "drop --no-build, or name the folder of the build with --build"
    contains(refused("--build", nowhere), f"--no-build: there is no folder {nowhere}: {what_to_do}")
    assert not os.path.exists(nowhere), "it made the folder"
    os.makedirs(path("empty"))
    _, text, _ = checked("--build", path("empty"), "--parts", "compile", code=2, out="empty-out")
    contains(text, what_to_do)


def test_without_a_driver():
    if IS_DRIVER:
        return
    env = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    _, err = run([sys.executable, GPU_CHECK, "--build", BUILD, "--no-build", "--out", path("no")], 1, env=env)
    contains(err, "no NVIDIA driver", "https://www.nvidia.com/drivers")
    assert not os.path.exists(path("no")), "a report of nothing"
    _, err = run([sys.executable, GPU_CHECK, "--parts", "peaks,nothing"], 2, env=env)
    contains(err, "--parts: there is no nothing")


if __name__ == "__main__":
    main_on_gpu()
