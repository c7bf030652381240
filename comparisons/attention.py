#!/usr/bin/env python3
"""Times causal attention of packed sequences by LibTorch's kernels on one GPU, forward and backward, as JSON.

    python comparisons/attention.py > FILE

FlashAttention-2 (any order of sums in backward; a fixed order in one call; a fixed order with the heads shared out
as halo/kernels/attention/attention_aten.cc does) beside cuDNN, for packed sequences and, where all are of one length,
as a batch; bf16, at the shapes of training. Each result is compared with FlashAttention's, and every backward pass
is run again to see whether its bits are the same. CUDA events, median of 11 after 3 runs.
"""

import json
import math

import torch
from cuda_timing import milliseconds

aten = torch.ops.aten

# name, lengths of the sequences, heads, key/value heads, head size, heads of each call in a fixed order (those that
# heads_per_call gives for 132 processors)
SHAPES = [
    ("stage 3 of HypeNet-2B", [16384], 16, 8, 128, [12, 4]),
    ("stage 3 of HypeNet-2B, packed documents", [1000, 3000, 200, 5000, 7184], 16, 8, 128, [12, 4]),
    ("stage 3 of HypeNet-2B, two rows", [16384] * 2, 16, 8, 128, [6, 6, 2, 2]),
    ("stage 2 of HypeNet-2B", [512] * 12, 16, 8, 128, [16]),
    ("SmolLM2", [1024] * 16, 9, 3, 64, [6, 3]),
]


def error(got, want):
    return ((got.float() - want.float()).norm() / want.float().norm()).item()


class Flash:
    def __init__(self, q, k, v, offsets, longest, calls=None):
        self.inputs, self.offsets, self.longest = (q, k, v), offsets, longest
        self.scale = 1 / math.sqrt(q.size(2))
        self.calls = calls or [q.size(1)]

    def forward(self):
        o, self.sums, self.seed, self.unused, _ = aten._flash_attention_forward(
            *self.inputs, self.offsets, self.offsets, self.longest, self.longest, 0.0, True, False, scale=self.scale)
        self.o = o
        return o

    def backward(self, d_o):
        q, k, v = self.inputs
        share, first, parts = q.size(1) // k.size(1), 0, []
        for heads in self.calls:
            queries = slice(first, first + heads)
            keys = slice(first // share, (first + heads) // share)
            parts.append(aten._flash_attention_backward(
                d_o[:, queries], q[:, queries], k[:, keys], v[:, keys], self.o[:, queries], self.sums[queries],
                self.offsets, self.offsets, self.longest, self.longest, 0.0, True, self.seed, self.unused,
                scale=self.scale))
            first += heads
        return [torch.cat(part, 1) if len(parts) > 1 else part[0] for part in zip(*parts)]


class CuDnn:
    """Packed, or a batch [sequences, heads, length, size] where `offsets` is None."""

    def __init__(self, q, k, v, offsets, longest):
        self.offsets, self.longest = offsets, longest
        self.inputs = [self.shaped(x) for x in (q, k, v)]
        self.scale = 1 / math.sqrt(q.size(2))

    def shaped(self, x):
        if self.offsets is not None:
            return x
        return x.view(-1, self.longest, x.size(1), x.size(2)).transpose(1, 2)

    def packed(self, x):
        return x if self.offsets is not None else x.transpose(1, 2).reshape(-1, x.size(1), x.size(3))

    def forward(self):
        out = aten._cudnn_attention_forward(*self.inputs, None, self.offsets, self.offsets, self.longest, self.longest,
                                            True, 0.0, True, False, scale=self.scale)
        self.o, self.sums, self.seed, self.unused = out[0], out[1], out[6], out[7]
        return self.packed(self.o)

    def backward(self, d_o):
        gradients = aten._cudnn_attention_backward(
            self.shaped(d_o), *self.inputs, self.o, self.sums, self.seed, self.unused, None, self.offsets,
            self.offsets, self.longest, self.longest, 0.0, True, scale=self.scale)
        return [self.packed(x) for x in gradients]


def measure(form, d_o, reference, pairs, head_size):
    o = form.forward()
    gradients = [x.clone() for x in form.backward(d_o)]
    same = all(torch.equal(a, b) for _ in range(5) for a, b in zip(gradients, form.backward(d_o)))
    result = {
        "forward_ms": milliseconds(form.forward),
        "backward_ms": milliseconds(lambda: form.backward(d_o)),
        "backward_same_bits": same,
    }
    flops = 4 * pairs * head_size  # of a product pair over the lower triangle
    result["forward_tflops"] = flops / result["forward_ms"] / 1e9
    result["backward_tflops"] = 2.5 * flops / result["backward_ms"] / 1e9
    if reference:
        errors = [error(a, b) for a, b in zip([o, *gradients], reference)]
        result["difference"] = max(errors) if all(map(math.isfinite, errors)) else "not finite"
    return result, [o, *gradients]


def main():
    torch.manual_seed(1)
    runs = []
    for name, lengths, heads, kv_heads, size, calls in SHAPES:
        tokens, longest = sum(lengths), max(lengths)
        offsets = torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)], dtype=torch.int32, device="cuda")
        q, d_o = (torch.randn(tokens, heads, size, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        k, v = (torch.randn(tokens, kv_heads, size, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        pairs = heads * sum(n * (n + 1) // 2 for n in lengths)
        run, reference = {"name": name}, None
        forms = [("flash, any order", Flash(q, k, v, offsets, longest), False),
                 ("flash, fixed order in one call", Flash(q, k, v, offsets, longest), True),
                 ("flash, fixed order in calls of " + " and ".join(map(str, calls)),
                  Flash(q, k, v, offsets, longest, calls), True),
                 ("cudnn, packed", CuDnn(q, k, v, offsets, longest), False)]
        if len(set(lengths)) == 1:
            forms += [("cudnn, a batch", CuDnn(q, k, v, None, longest), False),
                      ("cudnn, a batch, asked for a fixed order", CuDnn(q, k, v, None, longest), True)]
        for form_name, form, fixed in forms:
            torch.use_deterministic_algorithms(fixed)
            torch.utils.deterministic.fill_uninitialized_memory = False
            try:
                run[form_name], results = measure(form, d_o, reference, pairs, size)
                reference = reference or results
            except Exception as failure:  # a form that refuses is a result
                run[form_name] = {"failed": str(failure).splitlines()[0]}
        torch.use_deterministic_algorithms(False)
        runs.append(run)
    print(json.dumps({"card": torch.cuda.get_device_name(), "torch": torch.__version__,
                      "cudnn": torch.backends.cudnn.version(), "runs": runs}, indent=1))


main()
