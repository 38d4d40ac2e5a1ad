"""bench_dist_peer.py -- one rank of a peer of `tools/bench --dist`: GPT-2 in f32 trained by PyTorch or DeepSpeed over gloo.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... bench_dist_peer.py '{"mode": "ddp", "steps": 5, ...}'

Runs the steps, then prints their times, its losses, the process's peak memory and how it was set up as one line of JSON.  Each mode is set up as
its documentation has it for speed: gradients as views of the buckets, the fused AdamW where it works.
"""
import json
import os
import resource
import sys
import time

import torch
import torch.distributed as dist
from torch import nn

from bench_torch import Gpt2

ADAMW = {"lr": 6e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


def torch_step(model, wrapped, opt):
    def step(x, y):
        opt.zero_grad(set_to_none=True)
        loss = wrapped(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        return loss.item()

    return step


def ddp(c):
    model = Gpt2(c)
    wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    return torch_step(model, wrapped, torch.optim.AdamW(model.parameters(), fused=True, **ADAMW)), "fused AdamW"


def zero_optimizer(c):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = Gpt2(c)
    wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    opt = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, parameters_as_bucket_view=True, fused=True, **ADAMW)
    return torch_step(model, wrapped, opt), "fused AdamW"


def fsdp2(c):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, mesh = Gpt2(c), init_device_mesh("cpu", (c["ranks"],))
    for layer in model.h:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    how = "fused AdamW" if c["fused"] else "AdamW(foreach=True)"
    return torch_step(model, model, torch.optim.AdamW(model.parameters(), **ADAMW, **({"fused": True} if c["fused"] else {"foreach": True}))), how


def deepspeed(c, stage):
    import deepspeed as ds

    model = Gpt2(c)
    config = {
        "train_micro_batch_size_per_gpu": c["B"],
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage, "overlap_comm": False, "contiguous_gradients": True},
        "zero_allow_untested_optimizer": True,
    }
    opt = torch.optim.AdamW(model.parameters(), fused=True, **ADAMW)
    engine, *_ = ds.initialize(model=model, optimizer=opt, config=config, dist_init_required=False)

    def step(x, y):
        loss = engine(x, y)
        engine.backward(loss)
        engine.step()
        return loss.item()

    return step, f"DeepSpeed {ds.__version__}, torch's fused AdamW"


MODES = {"ddp": ddp, "zero": zero_optimizer, "fsdp2": fsdp2, "deepspeed1": lambda c: deepspeed(c, 1), "deepspeed3": lambda c: deepspeed(c, 3)}


def main():
    c = json.loads(sys.argv[1])
    out, sys.stdout = sys.stdout, sys.stderr  # what the libraries print is no answer
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if c["mode"].startswith("deepspeed"):
        import deepspeed as ds

        ds.init_distributed("gloo", verbose=False)
    else:
        dist.init_process_group("gloo")
    step, how = MODES[c["mode"]](c)
    torch.manual_seed(1 + dist.get_rank())
    x, y = (torch.randint(c["vocab"], (c["B"], c["T"])) for _ in range(2))
    times, losses = [], []
    for _ in range(c["steps"]):
        start = time.perf_counter()
        losses.append(step(x, y))
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"times": times, "losses": losses, "peak": peak, "how": how}), file=out, flush=True)
    dist.barrier()
    out.flush()
    os._exit(0)  # gloo's threads may not outlive the interpreter in order


if __name__ == "__main__":
    main()
