#!/usr/bin/env python3
"""Times lightning attention beside chunk_simple_gla of fla, on one GPU in one run, as JSON.

    python comparisons/compare_lightning.py --passes ./lightning_passes > FILE

lightning_passes.cu says how its program is built. fla: `pip install flash-linear-attention==0.4.2` beside
PyTorch with Triton. bf16, 16 heads of 128, 131,072 tokens in all as 131,072 / length sequences, ALiBi decays; CUDA
events, median of 11 after autotuning and 3 runs.
"""

import argparse
import json
import subprocess

import fla
import torch
import triton
from cuda_timing import milliseconds
from fla.ops.simple_gla import chunk_simple_gla

TOKENS, HEADS, SIZE = 131_072, 16, 128


def time_fla(length):
    """(forward, forward + backward) in ms."""
    shape = (TOKENS // length, length, HEADS, SIZE)
    q, k, v, d_o = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    slopes = torch.exp2(-8 * torch.arange(1, HEADS + 1, device="cuda") / HEADS)
    inputs = [x.requires_grad_() for x in (q, k, v)]

    def forward():
        return chunk_simple_gla(*inputs, g_gamma=-slopes, scale=SIZE**-0.5)[0]

    def both():
        for x in inputs:
            x.grad = None
        forward().backward(d_o)

    with torch.no_grad():
        forward_ms = milliseconds(forward)
    return forward_ms, milliseconds(both)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--passes", required=True, help="the program built of lightning_passes.cu")
    program = parser.parse_args().passes
    ours = json.loads(subprocess.run([program, "wgmma", str(HEADS), str(SIZE)], check=True,
                                     capture_output=True, text=True).stdout)
    results = []
    for row in ours["results"]:
        forward, both = time_fla(row["length"])
        results.append({"length": row["length"], "sequences": TOKENS // row["length"],
                        "forward_ms": row["forward_ms"], "fla_forward_ms": round(forward, 4),
                        "forward_times": round(forward / row["forward_ms"], 2),
                        "both_ms": row["both_ms"], "fla_both_ms": round(both, 4),
                        "both_times": round(both / row["both_ms"], 2)})
    print(json.dumps({"card": ours["card"], "copy_tb_s": ours["copy_tb_s"], "fla": fla.__version__,
                      "torch": torch.__version__, "triton": triton.__version__,
                      "results": results}, indent=1))


if __name__ == "__main__":
    main()
