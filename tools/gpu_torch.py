"""gpu_torch.py -- what PyTorch reaches on this GPU (tools/gpu-check): matmul by cuBLAS, copies, scaled_dot_product_attention.

    python gpu_torch.py '{"matmul": 8192, "copy_bytes": 1073741824, "sdpa": [B, H, T, D], "runs": 10}'

One line of JSON: {"torch", "cuda", "nccl", "matmul": {dtype: flops/s}, "copy": bytes/s, "sdpa": {dtype: {"forward_s", "backward_s"}}}.
Times are of events, the best run of each.  Operands are random: zeros let a chip clock higher than a training step does.
"""
import json
import sys

import torch
from torch.nn import functional as F

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def best_seconds(work, runs):
    work()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    events[0].record()
    for e in events[1:]:
        work()
        e.record()
    torch.cuda.synchronize()
    return min(a.elapsed_time(b) for a, b in zip(events, events[1:])) * 1e-3


def matmul_rate(n, dtype, runs):
    a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
    return 2 * n**3 / best_seconds(lambda: a @ b, runs)


def sdpa_seconds(shape, dtype, runs):
    """Forward as in training, with what the backward needs kept; the backward alone."""
    q, k, v = (torch.randn(*shape, device="cuda").to(dtype).requires_grad_() for _ in range(3))
    grad = torch.randn(*shape, device="cuda").to(dtype)
    forward = best_seconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), runs)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    backward = best_seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True), runs)
    return {"forward_s": forward, "backward_s": backward}


def main():
    c = json.loads(sys.argv[1])
    runs = c["runs"]
    torch.set_float32_matmul_precision("highest")
    start = torch.randn(c["copy_bytes"] // 4, device="cuda")
    to = torch.empty_like(start)
    copy = 2 * c["copy_bytes"] / best_seconds(lambda: to.copy_(start), runs)
    del start, to
    rates = {name: matmul_rate(c["matmul"] // (2 if name == "f32" else 1), dtype, runs) for name, dtype in DTYPES.items()}
    sdpa = {name: sdpa_seconds(c["sdpa"], DTYPES[name], runs) for name in ("bf16", "f16")}
    nccl = torch.cuda.nccl.version()
    print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "nccl": ".".join(map(str, nccl)) if isinstance(nccl, tuple) else str(nccl),
                      "matmul": rates, "copy": copy, "sdpa": sdpa}))


if __name__ == "__main__":
    main()
