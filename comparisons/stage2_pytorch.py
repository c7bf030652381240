"""One stage-2 step of a HypeNet in plain PyTorch: what `halo bench train` is compared with.

SDPA attention, lightning as one batched masked product or chunked (the faster is used), fused AdamW,
KL from full logits, fp32. Reads the same model directories and token ids; prints JSON.
"""
import argparse
import json
import math
import resource
import struct
import time

import torch
import torch.nn.functional as F

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64}


def read_safetensors(path):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    size = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(data[8 + size + begin:8 + size + end], dtype=DTYPES[entry["dtype"]])
        out[name] = flat.reshape(entry["shape"]).clone()
    return out


def slopes(heads):
    assert heads & (heads - 1) == 0, "this comparison covers powers of two"
    return torch.tensor([2.0 ** (-8.0 * (h + 1) / heads) for h in range(heads)])


def rms_norm(x, weight, eps):
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def lightning_masked(q, k, v, m):  # [B, H, T, d]
    t = torch.arange(q.shape[2])
    distance = (t[:, None] - t[None, :]).clamp_min(0)
    mask = torch.exp(-m[:, None, None] * distance) * (t[:, None] >= t[None, :])
    return ((q @ k.transpose(-1, -2)) * mask) @ v


def lightning_chunked(q, k, v, m, chunk=64):
    b, h, length, d = q.shape
    n = length // chunk
    q, k, v = (x.reshape(b, h, n, chunk, d) for x in (q, k, v))
    t = torch.arange(chunk)
    mask = torch.exp(-m[:, None, None] * (t[:, None] - t[None, :]).clamp_min(0))
    mask = (mask * (t[:, None] >= t[None, :]))[:, None]
    intra = ((q @ k.transpose(-1, -2)) * mask) @ v
    to_end = torch.exp(-m[:, None] * (chunk - 1 - t))[:, None, :, None]
    local = (k * to_end).transpose(-1, -2) @ v
    decay = torch.exp(-m * chunk)[:, None, None]
    state, states = torch.zeros_like(local[:, :, 0]), []
    for c in range(n):
        states.append(state)
        state = state * decay + local[:, :, c]
    from_start = torch.exp(-m[:, None] * (t + 1))[:, None, :, None]
    inter = (q * from_start) @ torch.stack(states, 2)
    return (intra + inter).reshape(b, h, length, d)


class Model:
    def __init__(self, directory, trained):
        with open(f"{directory}/config.json") as file:
            self.config = json.load(file)
        weights = read_safetensors(f"{directory}/model.safetensors")
        self.w = {name: value.float().requires_grad_(trained) for name, value in weights.items()}
        c = self.config
        self.layers = c["num_hidden_layers"]
        self.mixers = c.get("mixer_types") or ["attn"] * self.layers
        self.heads, self.kv_heads, self.d = (c["num_attention_heads"], c["num_key_value_heads"],
                                             c["head_dim"])
        self.eps, self.lightning = c["rms_norm_eps"], lightning_chunked
        self.slopes = slopes(self.heads)

    def rope(self, x):
        t = torch.arange(x.shape[2], dtype=torch.float64)
        freq = self.config["rope_theta"] ** (-torch.arange(0, self.d, 2, dtype=torch.float64) / self.d)
        angle = t[:, None] * freq
        cos, sin = angle.cos().float(), angle.sin().float()
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def mixer(self, i, x):
        p, w = f"model.layers.{i}.self_attn.", self.w
        attention = self.mixers[i] == "attn"
        hybrid = "mixer_types" in self.config and bool(self.config["mixer_types"])

        def heads(name):
            return F.linear(x, w[p + name]).unflatten(-1, (-1, self.d))

        q = rms_norm(heads("q_proj.weight"), w[p + "q_norm.weight"], self.eps).transpose(1, 2)
        k = rms_norm(heads("k_proj.weight"), w[p + "k_norm.weight"], self.eps).transpose(1, 2)
        v = heads("v_proj.weight").transpose(1, 2)
        if not attention or not hybrid:
            q, k = self.rope(q), self.rope(k)
        if attention:
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            o = self.lightning(q, k, v, self.slopes) / math.sqrt(self.d)
        o = o.transpose(1, 2).flatten(2)
        if not attention:
            o = rms_norm(o, w[p + "o_norm.weight"], self.eps)
        if hybrid:
            gate = p + ("o_gate.weight" if attention else "z_proj.weight")
            o = o * torch.sigmoid(F.linear(x, w[gate]))
        return F.linear(o, w[p + "o_proj.weight"])

    def logits(self, ids):
        w = self.w
        x = F.embedding(ids, w["model.embed_tokens.weight"])
        for i in range(self.layers):
            p = f"model.layers.{i}."
            x = x + self.mixer(i, rms_norm(x, w[p + "input_layernorm.weight"], self.eps))
            y = rms_norm(x, w[p + "post_attention_layernorm.weight"], self.eps)
            y = F.silu(F.linear(y, w[p + "mlp.gate_proj.weight"])) * F.linear(
                y, w[p + "mlp.up_proj.weight"])
            x = x + F.linear(y, w[p + "mlp.down_proj.weight"])
        head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
        return F.linear(rms_norm(x, w["model.norm.weight"], self.eps), head)


def faster_lightning(model, shape):
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    times = {}
    for form in (lightning_masked, lightning_chunked):
        for _ in range(3):
            start = time.perf_counter()
            form(q, k, v, model.slopes).sum().backward()
            times[form] = min(times.get(form, math.inf), time.perf_counter() - start)
    return min(times, key=times.get)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ids = read_safetensors(args.ids)["input_ids"]
    teacher, student = Model(args.teacher, False), Model(args.student, True)
    student.lightning = faster_lightning(
        student, (ids.shape[0], student.heads, ids.shape[1], student.d))
    parameters = list(student.w.values())
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0,
                                  fused=True)
    losses, seconds = [], []
    for _ in range(args.warmup + args.steps):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            target = F.log_softmax(teacher.logits(ids), -1)
        log_student = F.log_softmax(student.logits(ids), -1)
        loss = F.kl_div(log_student, target, reduction="sum", log_target=True) / ids.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    timed = sorted(seconds[args.warmup:])
    print(json.dumps({
        "torch": torch.__version__, "lightning": student.lightning.__name__, "loss": losses,
        "seconds": seconds[args.warmup:],
        "tokens_per_second": ids.numel() / timed[len(timed) // 2],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
