"""One layer of random weights through the reference algorithms as they are usually written in PyTorch, on the CPU:
python solver_loop.py gptq|sparsegpt N LAYER.safetensors; prints JSON and writes the layer to the file if it is not there.
Blocks of 128 columns, groups of 128, damping 0.01."""

import json
import os
import sys
import time

import torch
from safetensors.torch import load_file, save_file


def inverse_factor(h, damping=0.01):
    h = h.clone()
    i = torch.arange(h.shape[0])
    h[i, i] += damping * torch.diag(h).mean()
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)


def scale_of(group, levels=7.5):
    return (group.abs().amax(dim=1, keepdim=True) / levels).clamp(min=1e-9)


def solve(method, w, h, block=128, sparsity=0.5):
    w, u = w.clone(), inverse_factor(h)
    for first in range(0, w.shape[1], block):
        last = min(first + block, w.shape[1])
        part, factor = w[:, first:last].clone(), u[first:last, first:last]
        errors = torch.zeros_like(part)
        if method == "gptq":
            scale = scale_of(part)
        else:
            scores = part**2 / torch.diag(factor).reshape(1, -1) ** 2
            threshold = torch.sort(scores.flatten())[0][int(scores.numel() * sparsity)]
            removed = scores <= threshold
        for i in range(last - first):
            column = part[:, i]
            if method == "gptq":
                kept = torch.clamp(torch.round(column.unsqueeze(1) / scale), -8, 7) * scale
                kept = kept.flatten()
            else:
                kept = column.clone()
                kept[removed[:, i]] = 0
            error = (column - kept) / factor[i, i]
            part[:, i:] -= error.unsqueeze(1).matmul(factor[i, i:].unsqueeze(0))
            part[:, i] = kept
            errors[:, i] = error
        w[:, first:last] = part
        w[:, last:] -= errors.matmul(u[first:last, last:])
    return w


def main():
    method, n, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    torch.manual_seed(0)
    if not os.path.exists(file):
        save_file({"weight": torch.randn(n, n), "inputs": torch.randn(2 * n, n)}, file)
    layer = load_file(file)
    x, w = layer["inputs"], layer["weight"]
    h = x.t() @ x * (2 / len(x))
    with torch.no_grad():
        start = time.monotonic()
        solve(method, w, h)
        print(json.dumps({"seconds": time.monotonic() - start}))


main()
