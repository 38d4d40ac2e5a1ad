"""gputest.py -- what end-to-end tests of GPUs share: the simulator in the driver's place, or this machine's own driver.

$ZMC_GPU=driver (tools/gpu-check) takes the machine's GPU, with $ZMC_GPU_TARGET as the target; otherwise build/gpusim stands for the
driver, and for NCCL, and must have nothing to report.
"""
from zmtest import *

SIMULATOR = os.path.join(BUILD, "gpusim")
IS_DRIVER = os.environ.get("ZMC_GPU") == "driver"
TARGET = ("--target", os.environ.get("ZMC_GPU_TARGET", "cuda:sm_80") if IS_DRIVER else "cuda:sm_80")  # sm_80: the simulator's own

os.environ["ZMC_CACHE"] = os.environ.get("ZMC_TEST_CACHE") or path("cache")


def gpu_env(devices=1, **more):
    """The environment of a machine with GPUs, and the file that the simulator's reports go to."""
    report = path("gpusim-report")
    if os.path.exists(report):
        os.unlink(report)
    env = {**os.environ, **{k: str(v) for k, v in more.items()}}
    if IS_DRIVER:
        return env, report
    if "CUDA_VISIBLE_DEVICES" not in more:
        env.pop("CUDA_VISIBLE_DEVICES", None)  # chooses among this machine's, not the simulator's
    before = os.environ.get("LD_LIBRARY_PATH")
    search = SIMULATOR + (os.pathsep + before if before else "")
    return {**env, "LD_LIBRARY_PATH": search, "GPUSIM_REPORT": report, "GPUSIM_DEVICES": str(devices)}, report


def no_reports(report):
    assert not os.path.exists(report), read(report).decode()


def gpus():
    """How many there are; of the simulator as many as are asked for."""
    if not IS_DRIVER:
        return 8
    try:
        done = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        return 1  # else this script would not have been started
    return done.stdout.decode().count("GPU ")


def reason_to_skip():
    """Why GPUs' executables cannot be made or run here; None: they can."""
    if not IS_DRIVER and not os.path.exists(os.path.join(SIMULATOR, "libcuda.so.1")):
        return "no simulator in this build"
    done = subprocess.run([ZMC, os.path.join(MODELS, "mlp.zm"), *TARGET, "-o", path("probe")], stderr=subprocess.PIPE, check=False)
    text = done.stderr.decode()
    return text if "NVRTC, which is missing" in text else None


def main_on_gpu():
    why = reason_to_skip()
    if why:
        print(why)
        sys.exit(77)
    main()
