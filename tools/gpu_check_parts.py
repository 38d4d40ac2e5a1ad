"""gpu_check_parts.py -- the parts of tools/gpu-check.  Each takes the check (`c`: options, time left, results so far) and returns
its part of the result; what it could not do it tells c.missing(), or raises Missing when nothing came of it at all."""
import concurrent.futures
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time

import bench_gpu
import gpu_driver
import gpu_profile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = os.path.join(ROOT, "tools")
GPT2 = os.path.join(ROOT, "models", "gpt2.zm")

# chunk: of the logits, so that a product over the vocabulary fills the machine.
REAL = {"case": {"vocab": 50257, "ctx": 1024, "layers": 12, "heads": 12, "width": 768, "B": 32, "T": 1024}, "chunk": "1GiB", "rounds": 5, "steps": 10,
        "profile_steps": 6, "copy_bytes": 1 << 30, "product_rounds": 4096, "matmul": 8192, "runs": 10, "stages": range(4)}
TINY = {"case": {"vocab": 61, "ctx": 16, "layers": 1, "heads": 2, "width": 32, "B": 2, "T": 16}, "chunk": "1GiB", "rounds": 1, "steps": 2,
        "profile_steps": 2, "copy_bytes": 1 << 14, "product_rounds": 2, "matmul": 64, "runs": 2, "stages": (0, 3)}
SMALLEST_B = 4
PRECISIONS = {"bf16": ("--precision", "bf16"), "fp16": ("--precision", "fp16", "--loss-scale", "dynamic"), "fp32": ()}
DTYPE = {"bf16": "bf16", "fp16": "f16", "fp32": "f32"}
NEEDED = ("cc", "cmake", "ninja")

# What PTX holds that the simulator does not run (docs/gpusim.md).
ONLY_HARDWARE = {"cp.async.bulk": "TMA's bulk copies", "mbarrier": "mbarrier", "barrier.cluster": "clusters"}

BUILD_FAILED = "the part 'build' did not succeed"
NOT_BUILT = "drop --no-build, or name the folder of the build with --build"


class Missing(Exception):
    """A part cannot run; the text says why and what to do."""


def output_of(command, **more):
    """Its standard output, or None."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60, check=False, **more)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def run_within(c, command, what, env=None):
    """Standard output and error of a command that must succeed in the time that is left."""
    command = [str(x) for x in command]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                              timeout=max(1, c.left()), env=env, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired as e:
        raise Missing(f"{what}: did not end in the time that was left: {' '.join(command)}") from e
    if done.returncode:
        raise Missing(f"{what}: exit code {done.returncode}: {' '.join(command)}\n{(done.stdout + done.stderr).strip()[-3000:]}")
    return done.stdout, done.stderr


# ---- the machine


def machine(c):
    gpu = c.gpu.describe()
    nccl, where = gpu_driver.nccl_version()
    if not nccl:
        c.missing("NCCL", where)
    smi = output_of(["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit,persistence_mode,compute_mode", "--format=csv,noheader"])
    if not smi and not c.simulated:
        c.missing("nvidia-smi", "it is not installed, or failed: the driver's version and clocks are not known")
    own = "a" if gpu["sm"] == 90 else ""  # code that runs on this chip alone, such as wgmma
    c.target = c.args.target or f"cuda:sm_{gpu['sm']}{own}"
    return {**gpu, "nvidia_smi": smi, "nccl": nccl, "host": platform.platform(), "cpus": len(os.sched_getaffinity(0)), "python": platform.python_version(),
            "commit": output_of(["git", "-C", ROOT, "describe", "--always", "--dirty"]), "target": c.target}


# ---- building


def build(c):
    """Everything that the other parts run: the compiler, the runtime, the tests of GPUs."""
    tools = {name: shutil.which(name) for name in NEEDED}
    if os.path.exists("/etc/debian_version") and os.geteuid() == 0 and (not all(tools.values()) or not shutil.which("llvm-config-19")):
        run_within(c, [os.path.join(TOOLS, "deps"), "build"], "installing packages (tools/deps build)")
        tools = {name: shutil.which(name) for name in NEEDED}
    lacks = [name for name, at in tools.items() if not at] + ([] if shutil.which("llvm-config-19") else ["LLVM 19 (llvm-19-dev)"])
    if lacks:
        raise Missing(f"{', '.join(lacks)} missing: `tools/deps build` as root installs them on Debian; or build elsewhere and give --build DIR --no-build")
    start = time.monotonic()
    run_within(c, ["cmake", "-G", "Ninja", "-B", c.args.build, "-DCMAKE_BUILD_TYPE=Release"], "cmake")
    has_mpi = bool(shutil.which("mpicc"))
    if not has_mpi:
        c.missing("Open MPI", "mpicc is not installed: ranks start over --rendezvous alone")
    programs, _ = gpu_tests(c)
    targets = ["zmc", "zmrt", "gpusim_cuda", *(["zmc_mpi"] if has_mpi else []), *programs]
    run_within(c, ["ninja", "-C", c.args.build, *targets], "ninja")
    return {"took_s": time.monotonic() - start, "targets": len(targets)}


def zmc_of(c):
    zmc = os.path.join(c.args.build, "zmc")
    if not os.access(zmc, os.X_OK):
        raise Missing(f"no zmc in {c.args.build}: {NOT_BUILT if c.args.no_build else BUILD_FAILED}")
    return zmc


# ---- what the machine can do


def peaks(c):
    copies = c.gpu.copy_rates(c.size["copy_bytes"], c.size["runs"])
    products = c.gpu.product_rates(c.size["product_rounds"], c.size["runs"])
    if "bf16" not in products:
        c.missing("bf16", "this chip has no products in bf16 (sm_80 and later)")
    return {"copy": copies, "products": products}


def python_with_torch(c):
    """A Python whose torch sees the GPU, or why there is none."""
    tried = []
    for python in dict.fromkeys((c.args.python, os.environ.get("ZMC_BENCH_PYTHON"), os.path.join(c.args.build, "bench-env", "bin", "python"), "python3",
                                 sys.executable)):
        if not python or not shutil.which(python):
            continue
        said = output_of([python, "-c", "import torch; print(torch.cuda.is_available())"])
        if said == "True":
            return python, None
        tried.append(f"{python}: " + ("its torch sees no GPU" if said else "no torch"))
    return None, "; ".join(tried) + "; give --python PYTHON, of an environment with torch for CUDA"


def torch(c):
    if c.simulated:
        raise Missing("the GPU is simulated: PyTorch cannot run on it")
    python, why = python_with_torch(c)
    if not python:
        raise Missing(why)
    case = c.size["case"]
    spec = {"matmul": c.size["matmul"], "copy_bytes": c.size["copy_bytes"], "runs": c.size["runs"],
            "sdpa": [case["B"], case["heads"], case["T"], case["width"] // case["heads"]]}
    out, _ = run_within(c, [python, os.path.join(TOOLS, "gpu_torch.py"), json.dumps(spec)], "PyTorch's own rates")
    c.python = python
    return {"python": python, **json.loads(out.splitlines()[-1])}


# ---- compiling


def options_of(c, precision, batch, ranks=1, stage=0):
    case = {**c.size["case"], "B": batch}
    defs = [w for k, v in case.items() for w in ("-D", f"{k}={v}")]
    many = ["--ranks", ranks, "--zero", stage] if ranks > 1 else []
    return [GPT2, *defs, "--target", c.target, "--loss-chunk-bytes", c.size["chunk"], *PRECISIONS[precision], *many]


def batch_that_fits(c, precision):
    """The largest B whose plan fits the GPU's memory, halved from the case's."""
    batch = c.size["case"]["B"]
    free = c.result["machine"]["memory_free_bytes"]
    while True:
        out, _ = run_within(c, [zmc_of(c), "plan", *options_of(c, precision, batch), "--json"], "zmc plan")
        arena = max(r["arena"] for r in json.loads(out)["per_rank"])
        if arena < 0.95 * free:
            break
        if batch <= SMALLEST_B:
            raise Missing(f"GPT-2 124M in {precision} takes {arena / 2**30:.1f} GiB even with B={batch}, and this GPU has {free / 2**30:.1f} GiB free")
        batch //= 2
    if batch != c.size["case"]["B"]:
        c.missing(f"B={c.size['case']['B']} in {precision}", f"the plan does not fit {free / 2**30:.1f} GiB: B={batch} instead")
    return batch


def compile_models(c):
    """Executables of GPT-2 in every precision, as {precision: {exe, batch, s, cached_s}}."""
    out = {}
    for precision in PRECISIONS:
        if precision == "bf16" and c.result["machine"]["sm"] < 80:
            continue
        try:
            batch = batch_that_fits(c, precision)
            exe = os.path.join(c.work, f"gpt2-{precision}")
            times = []
            for _ in range(2):
                start = time.monotonic()
                _, said = run_within(c, [zmc_of(c), *options_of(c, precision, batch), "-o", exe], f"compiling GPT-2 in {precision}", c.env_fresh_cache())
                times.append(time.monotonic() - start)
            out[precision] = {"exe": exe, "batch": batch, "s": times[0], "cached_s": times[1], "said": said.strip()}
        except Missing as e:
            c.missing(f"GPT-2 in {precision}", str(e))
    if not out:
        raise Missing("no executable: see what could not run")
    with open(next(iter(out.values()))["exe"], "rb") as f:
        found = re.search(rb"Cuda compilation tools, release [0-9.]+, V[0-9.]+", f.read())
    c.result["machine"]["nvrtc"] = found.group().decode().split("V")[-1] if found else None
    return out


def counts(c):
    """Launches of GPT-2 124M, whatever the sizes of the other parts: of its last layer, and of the update for each bucket."""
    found, precision = {}, "bf16" if c.result["machine"]["sm"] >= 80 else "fp16"
    for layers in (11, 12):
        case = {**REAL["case"], "layers": layers}
        defs = [w for k, v in case.items() for w in ("-D", f"{k}={v}")]
        options = [GPT2, *defs, "--target", c.target, "--loss-chunk-bytes", REAL["chunk"], *PRECISIONS[precision], "--emit", "program"]
        out, _ = run_within(c, [zmc_of(c), *options], "zmc --emit program")
        found[layers] = gpu_profile.launches(out)
    names, n_buckets = found[12]
    update = [n for n in names if gpu_profile.UPDATE.search(n)]
    rest = {layers: [n for n in f[0] if not gpu_profile.UPDATE.search(n)] for layers, f in found.items()}
    return {"layer": len(rest[12]) - len(rest[11]), "update": len(update), "buckets": n_buckets, "update_names": update}


# ---- running


def data_of(c):
    """Tokens by a fixed recurrence, as wide as the vocabulary wants."""
    vocab, path = c.size["case"]["vocab"], os.path.join(c.work, "tokens")
    width = 2 if vocab > 256 else 1
    with open(path, "wb") as f:
        f.write(b"".join(((i * 7919 + (i >> 3) * 104729) % vocab).to_bytes(width, "little") for i in range(200000 if width == 2 else 4000)))
    return path


def bench(c):
    made = c.result.get("compile") or {}
    precision = "bf16" if "bf16" in made else "fp16"
    if precision not in made:
        raise Missing("GPT-2 was not compiled in 16 bits")
    m, case = made[precision], {**c.size["case"], "B": made[precision]["batch"]}
    ours = bench_gpu.Ours("zmc", m["exe"], data_of(c), c.work, seconds_left=c.left)
    peers = []
    if c.simulated:
        c.missing("PyTorch beside zmc", "the GPU is simulated")
    else:
        python, why = (c.python, None) if c.python else python_with_torch(c)
        if python:
            peers = [bench_gpu.Torch(name, python, case, precision, seconds_left=c.left) for name in bench_gpu.WAY]
        else:
            c.missing("PyTorch beside zmc", why)
    out = bench_gpu.bench_gpu(ours, peers, case["B"] * case["T"], c.size["rounds"], c.size["steps"], c.say)
    for name, r in out["programs"].items():
        if "reason" in r:
            c.missing(f"{name} of GPT-2 124M", r["reason"])
    return {"precision": precision, "batch": case["B"], **out}


def profiles(c):
    """Each kernel of each precision against its limit."""
    known, out = c.result.get("peaks"), {}
    if not known:
        raise Missing("no rates to compare with: the part 'peaks' did not succeed")
    by_torch = (c.result.get("torch") or {}).get("matmul", {})
    rates = {d: max(r, by_torch.get(d, 0)) for d, r in known["products"].items()}
    bandwidth = max([*known["copy"].values(), (c.result.get("torch") or {}).get("copy", 0)])
    steps = c.size["profile_steps"]
    for precision, m in (c.result.get("compile") or {}).items():
        trace = os.path.join(c.work, f"trace-{precision}.json")
        try:
            run_within(c, [m["exe"], "--data", data_of(c), "--steps", steps, "--profile", trace], f"profile of GPT-2 in {precision}")
            out[precision] = gpu_profile.rows_of(trace, steps, rates, bandwidth, DTYPE[precision])
        except (Missing, ValueError) as e:
            c.missing(f"profile of GPT-2 in {precision}", str(e))
    if not out:
        raise Missing("no profile: see what could not run")
    return {"rates": rates, "bandwidth": bandwidth, "rows": out}


def ranks(c):
    """Tokens a second of all GPUs together, at each stage of ZeRO, met over a file."""
    n = c.gpu.n_devices
    if n < 2:
        raise Missing("one GPU: NCCL wants a GPU for each rank, so that nothing between GPUs was run")
    precision = next((p for p in ("bf16", "fp16") if p in (c.result.get("compile") or {})), None)
    if not precision:
        raise Missing("GPT-2 was not compiled in 16 bits")
    batch, out = c.result["compile"][precision]["batch"], {"ranks": n, "precision": precision, "stages": {}}
    for stage in c.size["stages"]:
        try:
            exe = os.path.join(c.work, f"gpt2-{n}-zero{stage}")
            run_within(c, [zmc_of(c), *options_of(c, precision, batch, n, stage), "-o", exe], f"compiling stage {stage} for {n} ranks")
            out["stages"][stage] = {**ranks_run(c, exe, n, stage, n * batch * c.size["case"]["T"]), "batch": batch}
        except Missing as e:
            c.missing(f"{n} ranks at stage {stage}", str(e))
    if not out["stages"]:
        raise Missing("no stage ran: see what could not run")
    return out


def ranks_run(c, exe, n, stage, items):
    metrics, meet = (os.path.join(c.work, f"{name}-zero{stage}") for name in ("metrics", "meet"))
    for path in (metrics, meet):
        if os.path.exists(path):
            os.unlink(path)
    steps = c.size["steps"]
    command = [exe, "--data", data_of(c), "--steps", str(steps + bench_gpu.N_WARM), "--metrics", metrics, "--rendezvous", meet]
    processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  env={**os.environ, "ZMC_RANK": str(r), "ZMC_WORLD": str(n)}) for r in range(n)]
    said = []
    for p in processes:
        try:
            said.append(p.communicate(timeout=max(1, c.left()))[1])
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
            raise Missing("it did not end in the time that was left") from None
    if any(p.returncode for p in processes):
        raise Missing("exit codes " + ", ".join(str(p.returncode) for p in processes) + ": " + "\n".join(said).strip()[-2000:])
    with open(metrics, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    seconds = sum(l["step_s"] for l in lines[bench_gpu.N_WARM:]) / steps
    return {"step_s": seconds, "tokens_s": items / seconds, "arena_bytes": lines[-1]["arena_bytes"], "comm_bytes": lines[-1]["comm_bytes"],
            "losses": [l["loss"] for l in lines]}


# ---- tests


def gpu_tests(c):
    """Programs and scripts that run on the machine's own driver when $ZMC_GPU is "driver"; without those that test the simulator."""
    programs, scripts = [], []
    for folder in ("unit", "property"):
        at = os.path.join(ROOT, "tests", folder)
        for name in sorted(n for n in os.listdir(at) if n.endswith(".c") and not n.startswith(("gpusim", "cuda_sim"))):
            with open(os.path.join(at, name), encoding="utf-8") as f:
                text = f.read()
            if re.search("unit/cuda_sim|property/gpu_test|driver_is_machines|driver_open_gpu", text):
                programs.append("test_" + name[:-2])
    at = os.path.join(ROOT, "tests", "e2e")
    for name in sorted(n for n in os.listdir(at) if n.startswith("test_cuda") and n.endswith(".py")):
        with open(os.path.join(at, name), encoding="utf-8") as f:
            if "from gputest import" in f.read():
                scripts.append(os.path.join(at, name))
    wanted = re.compile(c.args.tests)
    return [p for p in programs if wanted.search(p)], [s for s in scripts if wanted.search(os.path.basename(s))]


def tests(c):
    """Every test of GPUs, on this driver, several at a time: most of what they do is NVRTC's and the reference's, on the CPU."""
    programs, scripts = gpu_tests(c)
    commands = [(os.path.basename(s), [sys.executable, s, c.args.build]) for s in scripts] + [(p, [os.path.join(c.args.build, p)]) for p in programs]
    env = {**os.environ, "ZMC_GPU": "driver", "ZMC_GPU_TARGET": c.target, "ZMC_BUILD": c.args.build}
    with concurrent.futures.ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // 2)) as pool:
        out = list(pool.map(lambda named: test_row(c, *named, env), commands))
    for row in out:
        if row["status"] in ("not run", "skipped"):
            c.missing(row["name"], row["why"])
    return out


def test_row(c, name, command, env):
    start = time.monotonic()
    row = test_result(c, command, env)
    took = time.monotonic() - start
    c.say(f"{name}: {row['status']}")
    return {"name": name, **row, "took_s": took}


def test_result(c, command, env):
    if not os.path.exists(command[-1] if len(command) == 1 else command[1]):
        return {"status": "not run", "why": f"{command[0]} was not built"}
    if c.left() < 1:
        return {"status": "not run", "why": "no time was left"}
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env,
                              timeout=max(1, c.left()), check=False)
    except subprocess.TimeoutExpired:
        return {"status": "not run", "why": "it did not end in the time that was left"}
    said = done.stdout.strip()
    if done.returncode == 77:
        return {"status": "skipped", "why": said[-600:]}
    if done.returncode:
        return {"status": "failed", "why": f"exit code {done.returncode}:\n{said[-4000:]}"}
    partly = [line for line in said.splitlines() if line.startswith("skip")]
    return {"status": "passed", "why": "; ".join(partly)}


# ---- what only a GPU shows


def hardware_only(c):
    """Variants that no simulator runs, each with what this run says of it."""
    out = []
    for precision, m in (c.result.get("compile") or {}).items():
        with open(m["exe"], "rb") as f:
            text = f.read()
        for entry in re.split(rb"\.visible \.entry ", text)[1:]:
            name = re.match(rb"\w+", entry).group().decode()
            for what, meaning in ONLY_HARDWARE.items():
                if re.search(rb"^\s+(@%p\d+ )?" + re.escape(what.encode()), entry[:1 << 20].split(b"\0")[0], re.M):
                    out.append({"what": f"{name} of GPT-2 in {precision}: {meaning}", "ran": precision in c.profiled()})
    ran = bool(c.profiled())
    out.append({"what": f"machine code (cubin) of every kernel for {c.target}; the simulator runs their PTX", "ran": ran and not c.simulated})
    out.append({"what": "CUDA graphs, events and pinned copies of a real driver", "ran": ran and not c.simulated})
    out.append({"what": "NCCL itself between GPUs", "ran": bool(c.result.get("ranks")) and not c.simulated})
    out.append({"what": "speed", "ran": bool(c.result.get("bench")) and not c.simulated})
    return out
