"""The decoder of docs/math/hypenet.md in float64, as its equations are written: one sequence at a
time, the recurrence token by token, no cache. Shares no code with halo.
"""

import math

import numpy as np

import tape
from tape import Value, concatenate, einsum, inverse_sqrt, sigmoid


def rms_norm(x, weight, eps):
    return x * inverse_sqrt((x * x).mean(axis=-1) + eps) * weight


def linear(x, weights, name):
    y = tape.linear(x, weights[name + ".weight"])
    bias = weights.get(name + ".bias")
    return y if bias is None else y + bias


def slopes(heads):
    """The decay rates of 1.2."""
    power = 1
    while power * 2 <= heads:
        power *= 2
    first = [2.0 ** (-8 * (h + 1) / power) for h in range(power)]
    twice = [2.0 ** (-8 * (h + 1) / (2 * power)) for h in range(2 * power)]
    return np.array(first + twice[0::2][:heads - power])


def logit_scale(setting, positions):
    """s_t of 1.1; `setting` as config.json has it."""
    if setting is None:
        return np.ones(len(positions))
    if isinstance(setting, (int, float)):
        return np.full(len(positions), float(setting))
    words = setting.split()
    a = float(words[1]) if len(words) > 1 else 362.0
    return np.log(positions + a) / math.log(a)


def rope_frequencies(config, size):
    """1.3: frequencies of the pairs (i, i + size/2), and the factor of cos and sin."""
    theta = float(config.get("rope_theta", 10000.0))
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    pairs = np.arange(size // 2)
    frequency = theta ** (-2.0 * pairs / size)
    kind = scaling["rope_type"]
    if kind == "default":
        return frequency, 1.0
    factor = scaling["factor"]
    if kind == "linear":
        return frequency / factor, 1.0
    trained = scaling["original_max_position_embeddings"]
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = trained * frequency / (2 * math.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return frequency * (kept + (1 - kept) / factor), 1.0
    assert kind == "yarn", kind

    def pair_that_turns(times):
        return size * math.log(trained / (2 * math.pi * times)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(pair_that_turns(scaling.get("beta_slow", 1))), size - 1)
    slowed = np.clip((pairs - low) / ((high - low) or 0.001), 0, 1)
    return frequency * (1 - slowed + slowed / factor), 0.1 * math.log(factor) + 1


def rotate(x, positions, frequency, magnitude):
    """x [T, heads, d]."""
    half = x.shape[-1] // 2
    angle = np.outer(positions, frequency)[:, None, :]
    cos, sin = magnitude * np.cos(angle), magnitude * np.sin(angle)
    a, b = x[..., :half], x[..., half:]
    return concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def repeat_heads(x, heads):
    """Head h of the result is head h // (heads / x's heads)."""
    return x if x.shape[1] == heads else x[:, np.arange(heads) // (heads // x.shape[1])]


def lightning(q, k, v, slope, scale, state):
    """Arrays: q, k [T, H, dk], v [T, H, dv], state [H, dk, dv] -> o [T, H, dv], all states."""
    g = np.exp(-slope)[:, None, None]
    states, o = [state], []
    for t in range(len(q)):
        states.append(g * states[-1] + k[t][:, :, None] * v[t][:, None, :])
        o.append(scale * np.einsum("hkv,hk->hv", states[-1], q[t]))
    return np.array(o), states


def lightning_gradients(q, k, v, slope, scale, states, d_o, d_state):
    """Those of q, k, v and the first state, walking back from d_state, the last state's."""
    g = np.exp(-slope)[:, None, None]
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    d = d_state
    for t in reversed(range(len(q))):
        dq[t] = scale * np.einsum("hkv,hv->hk", states[t + 1], d_o[t])
        d = d + scale * q[t][:, :, None] * d_o[t][:, None, :]
        dk[t] = np.einsum("hkv,hv->hk", d, v[t])
        dv[t] = np.einsum("hkv,hk->hv", d, k[t])
        d = g * d
    return dq, dk, dv, d


def lightning_node(q, k, v, slope, scale):
    zero = np.zeros((q.shape[1], q.shape[2], v.shape[2]))
    o, states = lightning(q.data, k.data, v.data, slope, scale, zero)
    known = {}  # all three are asked for the same derivative

    def back(i):
        def gradient(d):
            if known.get("of") is not d:
                known["of"] = d
                known["are"] = lightning_gradients(q.data, k.data, v.data, slope, scale, states, d,
                                                   zero)
            return known["are"][i]

        return gradient

    return Value(o, ((q, back(0)), (k, back(1)), (v, back(2))))


def attention(q, k, v):
    """Causal; q [T, H, d], k and v of as many heads."""
    scores = einsum("thd,shd->hts", q, k) * q.shape[-1] ** -0.5
    future = np.triu(np.full((q.shape[0], q.shape[0]), -np.inf), 1)
    return einsum("hts,shd->thd", tape.softmax(scores + future), v)


class Decoder:
    """A model directory's config.json (a dict) and weights (name -> Value)."""

    def __init__(self, config, weights):
        self.config, self.weights = config, weights
        self.eps = config.get("rms_norm_eps", 1e-6)
        layers = config["num_hidden_layers"]
        self.mixers = [m.replace("_", "-") for m in config.get("mixer_types") or ["attn"] * layers]

    def split(self, x, layer, heads, kv_heads, head_dim, positions, qk_norm, rope):
        """q, k, v [T, heads, d] of a mixer."""
        prefix = f"model.layers.{layer}.self_attn."
        out = []
        for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            y = linear(x, self.weights, prefix + part + "_proj").reshape(len(x.data), count,
                                                                         head_dim)
            if part != "v" and qk_norm:
                y = rms_norm(y, self.weights[prefix + part + "_norm.weight"], self.eps)
            if part != "v" and rope:
                y = rotate(y, positions, *rope_frequencies(self.config, head_dim))
            out.append(y)
        return out

    def attention_heads(self, layer, x, positions):
        c, prefix = self.config, f"model.layers.{layer}.self_attn."
        heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        has_norm = prefix + "q_norm.weight" in self.weights
        q, k, v = self.split(x, layer, heads, kv_heads, head_dim(c), positions, has_norm,
                             c.get("attn_use_rope", True))
        q = q * logit_scale(c.get("attn_logits_scaling"), positions)[:, None, None]
        o = attention(q, repeat_heads(k, heads), repeat_heads(v, heads)).reshape(len(x.data), -1)
        if c.get("attn_use_output_gate", False):
            o = o * sigmoid(linear(x, self.weights, prefix + "o_gate"))
        return o

    def lightning_heads(self, layer, x, positions):
        c, prefix = self.config, f"model.layers.{layer}.self_attn."
        heads = c.get("lightning_nh") or c["num_attention_heads"]
        kv_heads = c.get("lightning_nkv") or c["num_key_value_heads"]
        size = c.get("lightning_head_dim") or head_dim(c)
        q, k, v = self.split(x, layer, heads, kv_heads, size, positions,
                             c.get("lightning_use_qk_norm", False),
                             c.get("lightning_use_rope", True))
        scale = {"1/sqrt(d)": size ** -0.5, "1/d": 1 / size, "none": 1.0}
        o = lightning_node(q, repeat_heads(k, heads), repeat_heads(v, heads), slopes(heads),
                           scale[c.get("lightning_scale", "1/sqrt(d)")]).reshape(len(x.data), -1)
        if c.get("lightning_use_output_norm", False):
            o = rms_norm(o, self.weights[prefix + "o_norm.weight"], self.eps)
        if c.get("lightning_use_output_gate", False):
            o = o * sigmoid(linear(x, self.weights, prefix + "z_proj"))
        return o

    def heads(self, layer, x, positions):
        """A mixer without its o_proj: [T, H d]."""
        run = self.attention_heads if self.mixers[layer] == "attn" else self.lightning_heads
        return run(layer, x, positions)

    def mixer(self, layer, x, positions):
        return linear(self.heads(layer, x, positions), self.weights,
                      f"model.layers.{layer}.self_attn.o_proj")

    def mixer_input(self, layer, stream):
        name = f"model.layers.{layer}.input_layernorm.weight"
        return rms_norm(stream, self.weights[name], self.eps)

    def mlp(self, layer, stream):
        prefix = f"model.layers.{layer}."
        y = rms_norm(stream, self.weights[prefix + "post_attention_layernorm.weight"], self.eps)
        gate = linear(y, self.weights, prefix + "mlp.gate_proj")
        up = linear(y, self.weights, prefix + "mlp.up_proj")
        return linear(gate * sigmoid(gate) * up, self.weights, prefix + "mlp.down_proj")

    def embed(self, ids):
        return self.weights["model.embed_tokens.weight"][np.asarray(ids)]

    def run(self, ids, positions=None):
        """ids [T] -> logits [T, V] and the residual stream after each layer, all Value."""
        positions = np.arange(len(ids)) if positions is None else np.asarray(positions)
        stream, after = self.embed(ids), []
        for layer in range(len(self.mixers)):
            stream = stream + self.mixer(layer, self.mixer_input(layer, stream), positions)
            stream = stream + self.mlp(layer, stream)
            after.append(stream)
        last = rms_norm(stream, self.weights["model.norm.weight"], self.eps)
        head = "model.embed_tokens" if self.config.get("tie_word_embeddings") else "lm_head"
        return linear(last, {"head.weight": self.weights[head + ".weight"]}, "head"), after

    def greedy(self, prompt, count):
        """The ids chosen after `prompt`, the logits [count, V] of each choice."""
        ids, rows = list(prompt), []
        for _ in range(count):
            rows.append(self.run(ids)[0].data[-1])
            ids.append(int(rows[-1].argmax()))
        return np.array(ids[len(prompt):]), np.array(rows)


def head_dim(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
