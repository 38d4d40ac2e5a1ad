"""gpu_driver.py -- the CUDA driver from Python, by ctypes: what device it is, and what it can do at most (tools/gpu-check).

The kernels that measure are PTX written here, which the driver compiles: they need neither NVRTC nor a toolkit.  Rates are of the
fastest of several runs, timed by events.
"""
import ctypes
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p

LIBRARY = "libcuda.so.1"
ATTRIBUTES = {"multiprocessors": 16, "clock_khz": 13, "memory_clock_khz": 36, "memory_bus_bits": 37, "l2_bytes": 38, "major": 75, "minor": 76,
              "shared_bytes_most": 97}
WARPS, CHAINS = 8, 8  # of a block that measures arithmetic; independent sums of a warp
LANES = 32


class GpuError(Exception):
    pass


def result_line(registers):
    """Stores a value that depends on all registers, so that none is left out."""
    return "\n".join(["mov.f32 %s, 0f00000000;"] + [f"add.f32 %s, %s, {r};" for r in registers] + ["st.global.f32 [%at], %s;"])


def loop_ptx(name, registers, body, sm):
    """An entry (out, n): n times `body`; each thread then stores a sum of `registers`."""
    return f""".version 7.0
.target sm_{min(sm, 80)}
.address_size 64
.visible .entry {name}(.param .u64 out, .param .u32 n) {{
.reg .f32 %c<{len(registers) + 1}>, %s;
.reg .b32 %a<5>, %i, %n, %t, %b, %w;
.reg .b64 %at, %o;
.reg .pred %p;
ld.param.u64 %at, [out];
ld.param.u32 %n, [n];
mov.u32 %t, %tid.x;
mov.u32 %b, %ctaid.x;
mov.u32 %w, %ntid.x;
mad.lo.u32 %t, %b, %w, %t;
mul.wide.u32 %o, %t, 4;
add.s64 %at, %at, %o;
mov.b32 %a0, 0x3c003c00;
mov.b32 %a1, 0x3c003c00;
mov.b32 %a2, 0x3c003c00;
mov.b32 %a3, 0x3c003c00;
""" + "\n".join(f"mov.f32 {r}, 0f3F800000;" for r in registers) + f"""
mov.u32 %i, 0;
again:
{body}
add.u32 %i, %i, 1;
setp.lt.u32 %p, %i, %n;
@%p bra again;
{result_line(registers)}
ret;
}}
"""


def mma_ptx(dtype, sm):
    """16-bit products on tensor cores, operands in registers: PTX, and flops of a warp's round."""
    registers = [f"%c{i}" for i in range(4 * CHAINS)]
    k, ab = (16, "{%a0,%a1,%a2,%a3}, {%a0,%a1}") if sm >= 80 else (8, "{%a0,%a1}, {%a0}")
    body = []
    for i in range(CHAINS):
        c = "{" + ",".join(registers[4 * i:4 * i + 4]) + "}"
        body.append(f"mma.sync.aligned.m16n8k{k}.row.col.f32.{dtype}.{dtype}.f32 {c}, {ab}, {c};")
    return loop_ptx("products", registers, "\n".join(body), sm), 2 * 16 * 8 * k * CHAINS


def fma_ptx(sm):
    registers = [f"%c{i}" for i in range(4 * CHAINS)]
    body = "\n".join(f"fma.rn.f32 {r}, {r}, 0f3F7FFFFE, 0f33800000;" for r in registers)
    return loop_ptx("products", registers, body, sm), 2 * LANES * len(registers)


COPY_PTX = """.version 7.0
.target sm_75
.address_size 64
.visible .entry copy(.param .u64 to, .param .u64 from, .param .u64 n) {
.reg .b64 %to, %from, %n, %i, %step, %x, %y;
.reg .b32 %t, %b, %w, %g, %v<4>;
.reg .pred %p;
ld.param.u64 %to, [to];
ld.param.u64 %from, [from];
ld.param.u64 %n, [n];
mov.u32 %t, %tid.x;
mov.u32 %b, %ctaid.x;
mov.u32 %w, %ntid.x;
mov.u32 %g, %nctaid.x;
mad.lo.u32 %t, %b, %w, %t;
mul.wide.u32 %i, %t, 16;
mul.lo.u32 %g, %g, %w;
mul.wide.u32 %step, %g, 16;
bra test;
again:
add.s64 %x, %from, %i;
add.s64 %y, %to, %i;
ld.global.v4.u32 {%v0,%v1,%v2,%v3}, [%x];
st.global.v4.u32 [%y], {%v0,%v1,%v2,%v3};
add.s64 %i, %i, %step;
test:
setp.lt.u64 %p, %i, %n;
@%p bra again;
ret;
}
"""


class Gpu:
    """The first device of the driver that the loader finds; `why` of a failure says what is missing."""

    def __init__(self, ordinal=0):
        try:
            self.lib = ctypes.CDLL(LIBRARY)
        except OSError as e:
            raise GpuError(f"no NVIDIA driver: {e}; install it from https://www.nvidia.com/drivers (in a container: run it with --gpus all)") from e
        self.is_simulator = hasattr(self.lib, "gpusim_report_count")
        self.call("cuInit", c_uint(0))
        n, device, context = c_int(), c_int(), c_void_p()
        self.call("cuDeviceGetCount", byref(n))
        if not n.value:
            raise GpuError("the NVIDIA driver is here, but no GPU: see what `nvidia-smi` says")
        self.n_devices = n.value
        self.call("cuDeviceGet", byref(device), c_int(ordinal))
        self.device = device
        self.call("cuDevicePrimaryCtxRetain", byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *args):
        error = getattr(self.lib, name)(*args)
        if error:
            text = c_char_p()
            self.lib.cuGetErrorString(c_int(error), byref(text))
            raise GpuError(f"{name}: error {error}: {(text.value or b'?').decode()}")

    def attribute(self, number):
        """None where the driver does not know it."""
        value = c_int()
        return None if self.lib.cuDeviceGetAttribute(byref(value), c_int(number), self.device) else value.value

    def describe(self):
        name, version, free, total = ctypes.create_string_buffer(256), c_int(), c_size_t(), c_size_t()
        self.call("cuDeviceGetName", name, c_int(256), self.device)
        self.call("cuDriverGetVersion", byref(version))
        self.call("cuMemGetInfo_v2", byref(free), byref(total))
        facts = {key: self.attribute(number) for key, number in ATTRIBUTES.items()}
        return {"name": name.value.decode(), "devices": self.n_devices, "sm": facts.pop("major") * 10 + facts.pop("minor"), "simulated": self.is_simulator,
                "cuda_of_driver": f"{version.value // 1000}.{version.value % 1000 // 10}", "memory_bytes": total.value, "memory_free_bytes": free.value, **facts}

    # ---- measuring

    def memory(self, n_bytes):
        at = c_uint64()
        self.call("cuMemAlloc_v2", byref(at), c_size_t(n_bytes))
        self.call("cuMemsetD8_v2", at, ctypes.c_ubyte(0), c_size_t(n_bytes))
        return at

    def free(self, at):
        self.call("cuMemFree_v2", at)

    def function(self, ptx, name):
        module, fn = c_void_p(), c_void_p()
        self.call("cuModuleLoadData", byref(module), c_char_p(ptx.encode() + b"\0"))
        self.call("cuModuleGetFunction", byref(fn), module, c_char_p(name.encode()))
        return fn

    def launch(self, fn, grid, block, *args):
        params = (c_void_p * len(args))(*(ctypes.cast(ctypes.pointer(a), c_void_p) for a in args))
        self.call("cuLaunchKernel", fn, *(c_uint(x) for x in (grid, 1, 1, block, 1, 1, 0)), None, params, None)

    def best_seconds(self, work, runs):
        """Of `work` enqueued `runs` times, after once."""
        events = [c_void_p() for _ in range(runs + 1)]
        for e in events:
            self.call("cuEventCreate", byref(e), c_uint(0))
        work()
        self.call("cuEventRecord", events[0], None)
        for e in events[1:]:
            work()
            self.call("cuEventRecord", e, None)
        self.call("cuCtxSynchronize")
        took = []
        for a, b in zip(events, events[1:]):
            ms = c_float()
            self.call("cuEventElapsedTime", byref(ms), a, b)
            took.append(ms.value * 1e-3)
        for e in events:
            self.call("cuEventDestroy_v2", e)
        return max(min(took), 1e-9)  # a simulator's clock may stand

    def copy_rates(self, n_bytes, runs):
        """Bytes a second, read and written both counted: the driver's copy, and a kernel of 16 bytes a lane."""
        to, start = self.memory(n_bytes), self.memory(n_bytes)
        fn, sms = self.function(COPY_PTX, "copy"), self.attribute(ATTRIBUTES["multiprocessors"]) or 1
        driver = self.best_seconds(lambda: self.call("cuMemcpyDtoDAsync_v2", to, start, c_size_t(n_bytes), None), runs)
        blocks = [n for n in (4 * sms, 8 * sms, 32 * sms, n_bytes // (16 * 256)) if n] if not self.is_simulator else [2]
        kernel = min(self.best_seconds(lambda n=n: self.launch(fn, n, 256, to, start, c_uint64(n_bytes)), runs) for n in blocks)
        self.free(to)
        self.free(start)
        return {"driver": 2 * n_bytes / driver, "kernel": 2 * n_bytes / kernel}

    def product_rates(self, rounds, runs):
        """Flops a second of products whose operands are in registers, of each dtype that this chip multiplies."""
        sm = self.describe()["sm"]
        sms = self.attribute(ATTRIBUTES["multiprocessors"]) or 1
        blocks = 1 if self.is_simulator else 4 * sms
        out, rates = self.memory(blocks * WARPS * LANES * 4), {}
        texts = {"f32": fma_ptx(sm), "f16": mma_ptx("f16", sm)} | ({"bf16": mma_ptx("bf16", sm)} if sm >= 80 else {})
        for dtype, (ptx, flops) in texts.items():
            fn = self.function(ptx, "products")
            seconds = self.best_seconds(lambda fn=fn: self.launch(fn, blocks, WARPS * LANES, out, c_uint(rounds)), runs)
            rates[dtype] = flops * rounds * WARPS * blocks / seconds
        self.free(out)
        return rates


def nccl_version():
    """Of libnccl.so.2 as the loader finds it: (text, where), or (None, why)."""
    try:
        lib = ctypes.CDLL("libnccl.so.2")
    except OSError as e:
        return None, f"{e}: `pip install nvidia-nccl-cu13`, or https://developer.nvidia.com/nccl; its folder into LD_LIBRARY_PATH"
    n = c_int()
    lib.ncclGetVersion(byref(n))
    return f"{n.value // 10000}.{n.value % 10000 // 100}.{n.value % 100}", "libnccl.so.2"
