#!/usr/bin/env python3
"""Attention's backward pass of stage 3 in a fixed order of sums, by cuDNN. One JSON to the given path.

cuDNN is asked for it through its frontend (`pip install nvidia-cudnn-frontend==1.14.1`), beside any order and Flash.

Per form: ms of a backward pass over 16 heads of 128 (8 key/value heads) and one row of so many tokens, whether five
calls gave the same bits, the workspace in GiB, how far dq, dk, dv are from Flash's (rms over rms). cuDNN is called for
so many heads at a time."""
import json
import sys

import cudnn
import torch


def timed(call, repeats=8):
    call()
    torch.cuda.synchronize()
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeats


def same_bits(call):
    first = [x.clone() for x in call()]
    return all(torch.equal(a, b) for _ in range(4) for a, b in zip(first, call()))


def rms(x, want):
    return ((x.float() - want.float()).square().mean() / want.float().square().mean()).sqrt().item()


class CudnnBackward:
    def __init__(self, handle, tensors, scale, deterministic):
        q, k, v, o, d_o, stats = tensors
        graph = cudnn.pygraph(io_data_type=cudnn.data_type.BFLOAT16,
                              intermediate_data_type=cudnn.data_type.FLOAT,
                              compute_data_type=cudnn.data_type.FLOAT, handle=handle)
        names = [graph.tensor_like(x) for x in (q, k, v, o, d_o, stats)]
        outs = graph.sdpa_backward(name="backward", q=names[0], k=names[1], v=names[2], o=names[3],
                                   dO=names[4], stats=names[5], attn_scale=scale, use_causal_mask=True,
                                   use_deterministic_algorithm=deterministic)
        for out, like in zip(outs, (q, k, v)):
            out.set_output(True).set_dim(list(like.size())).set_stride(list(like.stride()))
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A])
        graph.check_support()
        graph.build_plans()
        self.graph, self.names, self.outs, self.handle = graph, names, outs, handle
        self.workspace = torch.empty(max(1, graph.get_workspace_size()), dtype=torch.uint8, device="cuda")

    def __call__(self, tensors, grads):
        pack = dict(zip(self.names, tensors)) | dict(zip(self.outs, grads))
        self.graph.execute(pack, self.workspace, handle=self.handle)


def measure(handle, tokens, result):
    heads, groups, dim = 16, 8, 128
    scale = dim ** -0.5
    torch.manual_seed(1)
    make = lambda h: torch.randn(1, h, tokens, dim, device="cuda", dtype=torch.bfloat16)
    q, k, v, d_o = make(heads), make(groups), make(groups), make(heads)
    wide = lambda x: x.repeat_interleave(heads // groups, 1)
    aten = torch.ops.aten
    flash = aten._scaled_dot_product_flash_attention(q, wide(k), wide(v), 0.0, True, scale=scale)
    o, lse = flash[0], flash[1]
    stats = lse.float().reshape(1, heads, tokens, 1).contiguous()

    def flash_backward():
        d = aten._scaled_dot_product_flash_attention_backward(
            d_o, q, wide(k), wide(v), o, lse, None, None, tokens, tokens, 0.0, True, flash[6], flash[7],
            scale=scale)
        narrow = lambda x: x.view(1, groups, heads // groups, tokens, dim).float().sum(2).to(x.dtype)
        return d[0], narrow(d[1]), narrow(d[2])

    want = flash_backward()
    forms = result.setdefault(str(tokens), {})
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        forms[f"flash, deterministic {deterministic}, keys repeated"] = {
            "ms": timed(flash_backward), "same_bits": same_bits(flash_backward)}
    torch.use_deterministic_algorithms(False)
    for deterministic in (False, True):
        for share in (16, 4, 2):
            name = f"cudnn, deterministic {deterministic}, {share} heads a call"
            try:
                of = lambda x, first, count: x[:, first:first + count]
                group = heads // groups
                grads = [torch.empty_like(x) for x in (q, k, v)]
                parts = []
                for first in range(0, heads, share):
                    ins = [of(q, first, share), of(k, first // group, share // group),
                           of(v, first // group, share // group), of(o, first, share),
                           of(d_o, first, share), of(stats, first, share)]
                    outs = [of(grads[0], first, share), of(grads[1], first // group, share // group),
                            of(grads[2], first // group, share // group)]
                    parts.append((ins, outs))
                plan = CudnnBackward(handle, parts[0][0], scale, deterministic)

                def run():
                    for ins, outs in parts:
                        plan(ins, outs)
                    return grads

                forms[name] = {"ms": timed(run), "same_bits": same_bits(run),
                               "workspace_gib": plan.workspace.numel() / 2 ** 30,
                               "from_flash": [rms(a, b) for a, b in zip(run(), want)]}
                del plan
                torch.cuda.empty_cache()
            except Exception as error:  # one form that is refused is a result
                forms[name] = {"error": str(error)[:300]}
            print(tokens, name, forms[name], flush=True)


def main():
    result = {"what": __doc__.split("\n")[0], "card": torch.cuda.get_device_name(),
              "torch": torch.__version__, "cudnn": cudnn.backend_version()}
    handle = cudnn.create_handle()
    cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
    for tokens in (16384, 4096):
        measure(handle, tokens, result)
    with open(sys.argv[1], "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
