"""bench_torch.py -- the PyTorch peer of tools/bench: GPT-2 in f32 or under autocast, driven over stdin: a line N runs N steps and answers with their
times and the process's peak memory as JSON.

On a GPU ("device": "cuda") nothing waits within the N steps: each time is their mean, after one step more; the losses are read after
them, and the peak is of the GPU's memory."""
import json
import resource
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).split(c, 2))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(a.transpose(1, 2).reshape(b, t, c))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(c["vocab"], c["width"]), nn.Embedding(c["ctx"], c["width"])
        self.h = nn.ModuleList(Layer(c["width"], c["heads"]) for _ in range(c["layers"]))
        self.ln_f = nn.LayerNorm(c["width"])
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, x, y):
        e = self.wte(x) + self.wpe.weight[: x.shape[1]]
        for layer in self.h:
            e = layer(e)
        logits = self.ln_f(e) @ self.wte.weight.t()
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))


def main():
    c = json.loads(sys.argv[1])
    device = c.get("device", "cpu")
    torch.set_num_threads(c["threads"])
    torch.set_float32_matmul_precision("high" if c.get("precision", "fp32") != "fp32" else "highest")
    torch.manual_seed(0)
    model = Gpt2(c).to(device)
    opt = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, **({"foreach": True} if c["mode"] == "foreach" else {"fused": True}))
    loss_of = torch.compile(model) if c["mode"] == "compile" else model
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(c.get("precision"))
    cast = torch.autocast(device, dtype=low or torch.bfloat16, enabled=low is not None)
    x, y = (torch.randint(c["vocab"], (c["B"], c["T"]), device=device) for _ in range(2))

    def step():
        opt.zero_grad(set_to_none=True)
        with cast:
            loss = loss_of(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        return loss.detach()

    def timed(n):
        start = time.perf_counter()
        for loss in [step() for _ in range(n)]:
            loss.item()
        return (time.perf_counter() - start) / n

    for line in sys.stdin:
        if device == "cpu":
            times = [timed(1) for _ in range(int(line))]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        else:
            timed(1)
            times = [timed(int(line))] * int(line)
            peak = torch.cuda.max_memory_allocated()
            torch.cuda.empty_cache()  # for the others on this GPU, until the next round
        print(json.dumps({"times": times, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
