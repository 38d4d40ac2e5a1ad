"""zm-run --backend cuda on the project's GPU simulator gives what the interpreter gives; what it refuses has a cure.

Skipped by name where there is no NVRTC or no simulator.
"""
from zmtest import *

SIMULATOR = os.path.join(BUILD, "gpusim")
ZM_RUN = os.path.join(BUILD, "zm-run")
ZM_OPT = os.path.join(BUILD, "zm-opt")
LIT = os.path.join(ROOT, "tests", "lit", "run")

os.environ["ZMC_CACHE"] = path("cache")

STATE = os.path.join(LIT, "backend_cpu.zir")  # sums of 5 terms, a softmax, a variable and a counter
TOLERANCE = 4e-6  # as its CPU test: some tens of roundings of 6e-8
HALF = """
var @w : bf16[5,7] {init = normal(1.0)}
var @s : f32[] {kind = scalar, init = ones}

func @step(%x: bf16[3,5], %k: f16[3,7]) {
  %w = read @w
  %h = matmul %x, %w
  %g = cast %h : f16[3,7]
  %y = add %g, %k
  %s = read @s
  %t = add %s, %s
  write @s, %t
  return %h, %y {names = "h,y"}
}
"""


def simulated(**more):
    before = os.environ.get("LD_LIBRARY_PATH")
    env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}  # of this machine's
    return dict(env, LD_LIBRARY_PATH=SIMULATOR + (os.pathsep + before if before else ""), GPUSIM_REPORT=path("report"), **more)


def numbers(name):
    form = {"F32": "f", "I32": "i", "F16": "e"}
    out = {}
    for key, (dtype, shape, raw) in safetensors(name).items():
        if dtype == "BF16":
            out[key] = dtype, shape, [struct.unpack("<f", b"\0\0" + raw[i:i + 2])[0] for i in range(0, len(raw), 2)]
        else:
            out[key] = dtype, shape, list(struct.unpack(f"<{len(raw) // struct.calcsize(form[dtype])}{form[dtype]}", raw))
    return out


def both(file, inputs, tolerance, *args):
    """Variables and results of the two back ends; nothing is reported."""
    outs = [path(f"out-{b}.st") for b in ("interp", "cuda")]
    run([ZM_RUN, file, "--inputs", inputs, "--outputs", outs[0], *args])
    run([ZM_RUN, file, "--inputs", inputs, "--outputs", outs[1], "--backend", "cuda", *args], env=simulated())
    assert not os.path.exists(path("report")), read(path("report")).decode()
    want, got = numbers(outs[0]), numbers(outs[1])
    same(sorted(got), sorted(want), "names of tensors")
    for key, (dtype, shape, values) in want.items():
        same(got[key][:2], (dtype, shape), f"type of {key}")
        largest = max(map(abs, values))
        for a, b in zip(got[key][2], values):
            assert abs(a - b) <= tolerance * largest, f"{key}: {a}, interpreter {b}"
    return got


def state_inputs():
    return write_safetensors("in.st", {"x": ("F32", [3, 5], struct.pack("<15f", *range(15)))})


def test_state_and_results():
    got = both(STATE, state_inputs(), TOLERANCE, "--times", 3, "--seed", 7)
    same(got["n"][2], [3], "the counter")


def test_a_dumped_plan():
    plan = path("plan.zir")
    run([ZM_OPT, STATE, "--passes=expand,fuse,workspace,schedule,memplan", "-o", plan])
    both(plan, state_inputs(), TOLERANCE, "--times", 2)


def test_16_bits():
    with open(path("half.zir"), "w") as f:
        f.write(HALF)
    inputs = write_safetensors("half.st", {"x": ("BF16", [3, 5], struct.pack("<15H", *range(0x3F80, 0x3F8F))),
                                           "k": ("F16", [3, 7], struct.pack("<21e", *(i / 8 for i in range(21))))})
    got = both(path("half.zir"), inputs, 2 ** -8, "--times", 4)  # an ulp of bf16, where a sum rounds the other way
    same(got["s"][2], [16.0], "doubled four times")


def test_refusals():
    ranks = os.path.join(LIT, "ranks.zir")
    contains(run([ZM_RUN, ranks, "--function", "step", "--backend", "cuda:sm_80"], 1, env=simulated())[1], "one rank", "--backend cpu")
    wrong = ("--inputs", state_inputs(), "--backend")
    contains(run([ZM_RUN, STATE, *wrong, "cuda:sm_90"], 1, env=simulated())[1], "GPU here is sm_80", "--backend cuda:sm_80")
    contains(run([ZM_RUN, STATE, *wrong, "cuda"], 1, env=simulated(CUDA_VISIBLE_DEVICES=""))[1], "no GPU", "use --backend cpu")
    contains(run([ZM_RUN, STATE, *wrong, "cuda"], 1, env=simulated(GPUSIM_ARCH="abc"))[1],
             "gpusim: GPUSIM_ARCH=abc is no compute capability such as 80\n", "no GPU")
    contains(run([ZM_RUN, STATE, *wrong, "cuda"], 1, env=simulated(ZMC_NVRTC="/no/nvrtc", ZMC_CACHE=""))[1], "NVRTC", "ZMC_NVRTC")
    contains(run([ZM_RUN, STATE, *wrong, "cuda:x"], 1, env=simulated())[1], "like sm_90", "sm_75")


def reason_to_skip():
    if not os.path.exists(os.path.join(SIMULATOR, "libcuda.so.1")):
        return "no simulator in this build"
    done = subprocess.run([ZM_RUN, STATE, "--inputs", state_inputs(), "--backend", "cuda"], env=simulated(), stderr=subprocess.PIPE, check=False)
    text = done.stderr.decode()
    return text if "NVRTC, which is missing" in text else None


if __name__ == "__main__":
    why = reason_to_skip()
    if why:
        print(why)
        sys.exit(77)
    main()
