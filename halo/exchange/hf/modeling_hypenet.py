"""HypeNet in plain PyTorch: softmax attention in a few layers, Lightning attention in the others.

Lightning attention is the linear recurrence S_t = g S_{t-1} + k_t v_t^T, o_t = scale * q_t S_t
with one fixed decay g a head. Its state has one size at every length; only the attention layers
keep keys and values.

Shapes: B rows, T tokens of this call, S tokens with those before, H query heads, G key/value
heads, d head size, D hidden size.
"""

import math
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import nn
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from .configuration_hypenet import ATTENTION, LIGHTNING, HypeNetConfig, parse_logit_scale

# Tokens of a sequence that Lightning attention works on as one matrix product.
CHUNK = 128

# Version 5 of transformers calls the cache `cache`, version 4 `past_key_values`.
_CACHE_FIELD = (
    "cache"
    if "cache" in {field.name for field in fields(BaseModelOutputWithPast)}
    else "past_key_values"
)


class HypeNetCache(Cache):
    """What a batch of sequences keeps between calls: keys and values of the attention layers, the
    recurrent states of the Lightning layers, and which of the tokens seen were padding."""

    def __init__(self, config):
        super().__init__(layers=[])
        self.num_layers = config.num_hidden_layers
        self.reset()

    def reset(self):
        self.tensors = [
            None
        ] * self.num_layers  # (keys, values) [B, G, S, d] each, or (state,) [B, H, d, d] fp32
        self.seen = 0  # tokens, padding included
        self.valid = None  # [B, S] bool; None: no padding so far
        self.counts = None  # [B, 1] tokens without padding

    def append(self, layer, keys, values):
        if self.tensors[layer] is not None:
            past_keys, past_values = self.tensors[layer]
            keys, values = (
                torch.cat([past_keys, keys], dim=2),
                torch.cat([past_values, values], dim=2),
            )
        self.tensors[layer] = (keys, values)
        return keys, values

    def state(self, layer):
        return None if self.tensors[layer] is None else self.tensors[layer][0]

    def set_state(self, layer, state):
        self.tensors[layer] = (state,)

    def advance(self, num_tokens, valid, counts):
        self.seen += num_tokens
        self.valid = valid
        self.counts = counts

    def _map(self, function):
        self.tensors = [t if t is None else tuple(function(x) for x in t) for t in self.tensors]
        self.valid = None if self.valid is None else function(self.valid)
        self.counts = None if self.counts is None else function(self.counts)

    def reorder_cache(self, beam_idx):
        self._map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_select_indices(self, indices):
        self._map(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats):
        self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def crop(self, *args, **kwargs):
        raise NotImplementedError("the state of a Lightning layer cannot be wound back")

    def get_seq_length(self, layer_idx=0):
        return self.seen

    def get_max_cache_shape(self, layer_idx=0):
        return -1

    def get_max_length(self, layer_idx=None):
        return -1

    def __len__(self):
        return self.num_layers

    @property
    def is_compileable(self):
        return False

    @property
    def is_croppable(self):
        return False

    # To `generate`, layers that know how many tokens they have seen.
    @property
    def is_linear(self):
        return [False] * self.num_layers

    @property
    def is_sliding(self):
        return [False] * self.num_layers


def rotary_frequencies(config, head_dim):
    """(frequencies, magnitude): head_dim / 2 angles a token, and what multiplies cos and sin."""
    frequencies = [config.rope_theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2)]
    scaling = config.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    factor = scaling.get("factor", 1.0)
    length = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
    if kind == "linear":
        return [f / factor for f in frequencies], 1.0
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept = [
            min(max((length * f / (2 * math.pi) - low) / (high - low), 0.0), 1.0)
            for f in frequencies
        ]
        return [keep * f + (1 - keep) * f / factor for keep, f in zip(kept, frequencies)], 1.0
    if kind == "yarn":  # arXiv 2309.00071
        turns = (scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1)
        low, high = (
            head_dim * math.log(length / (n * 2 * math.pi)) / (2 * math.log(config.rope_theta))
            for n in turns
        )
        if scaling.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        width = high - low if high != low else 0.001
        scaled = [min(max((i - low) / width, 0.0), 1.0) for i in range(head_dim // 2)]
        magnitude = scaling.get("attention_factor")
        if not magnitude:
            magnitude = 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1
        return [f * (s / factor + 1 - s) for s, f in zip(scaled, frequencies)], magnitude
    return frequencies, 1.0


def decay_slopes(heads):
    """-ln of each head's decay: the slopes of ALiBi."""
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * (h + 1) / power) for h in range(power)]
    between = [2.0 ** (-4.0 * (h + 1) / power) for h in range(0, 2 * power, 2)]
    return slopes + between[: heads - power]


def in_double(positions):
    """At a million tokens products of fp32 are 0.06 rad off."""
    # MPS has no fp64.
    device = "cpu" if positions.device.type == "mps" else positions.device
    return positions.to(device=device, dtype=torch.float64)


def rotate(x, cos, sin):
    """Half-split rotation of x [B, H, T, d] by angles [B, T, d / 2]."""
    cos, sin = cos[:, None], sin[:, None]
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def repeat_heads(x, times):
    """[B, G, T, d] -> [B, G * times, T, d], each head `times` in a row."""
    if times == 1:
        return x
    rows, heads, length, size = x.shape
    return (
        x[:, :, None]
        .expand(rows, heads, times, length, size)
        .reshape(rows, heads * times, length, size)
    )


def lightning_attention(q, k, v, slopes, scale, counts, valid, state):
    """q, k, v [B, H, T, d] fp32; slopes [H]; counts [B or 1, T]: tokens that are no padding, up to
    and with each; valid [B, T] bool or None; state [B, H, d, d] or None -> outputs [B, H, T, d] and
    the state after them.

    Decay runs over `counts`, so padding neither enters the state nor ages it.
    """
    rows, heads, length, size = q.shape
    q = q * scale
    if valid is not None:
        k = k * valid[:, None, :, None]
    if state is None:
        state = q.new_zeros(rows, heads, size, v.shape[-1])
    slopes = slopes.view(1, heads, 1, 1)
    before = torch.zeros_like(counts[:, :1])
    outputs = []
    for begin in range(0, length, CHUNK):
        part = slice(begin, min(begin + CHUNK, length))
        qc, kc, vc, count = q[:, :, part], k[:, :, part], v[:, :, part], counts[:, part] - before
        last = count[:, -1:]
        age = (
            (count[:, :, None] - count[:, None, :]).clamp(min=0)[:, None].float()
        )  # [B or 1, 1, C, C]
        decay = torch.exp(-slopes * age).tril()
        since = torch.exp(-slopes * count[:, None, :, None].float())  # [B or 1, H, C, 1]
        outputs.append(((qc @ kc.transpose(-1, -2)) * decay) @ vc + since * (qc @ state))
        until = torch.exp(-slopes * (last - count)[:, None, :, None].float())
        state = (
            torch.exp(-slopes * last[:, None, :, None].float()) * state
            + (kc * until).transpose(-1, -2) @ vc
        )
        before = before + last
    return torch.cat(outputs, dim=2), state


class HypeNetRMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class HypeNetMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class HypeNetMixer(nn.Module):
    """What both mixers share: projections to heads, norms and rotation of queries and keys."""

    def __init__(self, config, layer_idx, heads, kv_heads, head_dim, use_rope, use_qk_norm):
        super().__init__()
        self.layer_idx = layer_idx
        self.heads, self.kv_heads, self.head_dim, self.use_rope = (
            heads,
            kv_heads,
            head_dim,
            use_rope,
        )
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(heads * head_dim, config.hidden_size, bias=bias)
        self.q_norm = HypeNetRMSNorm(head_dim, config.rms_norm_eps) if use_qk_norm else None
        self.k_norm = HypeNetRMSNorm(head_dim, config.rms_norm_eps) if use_qk_norm else None

    def split(self, x, heads, norm=None):
        x = x.view(*x.shape[:2], heads, self.head_dim)
        return (x if norm is None else norm(x)).transpose(1, 2)

    def project(self, x, context):
        """x [B, T, D] -> q [B, H, T, d], k and v [B, G, T, d]."""
        q = self.split(self.q_proj(x), self.heads, self.q_norm)
        k = self.split(self.k_proj(x), self.kv_heads, self.k_norm)
        v = self.split(self.v_proj(x), self.kv_heads)
        if self.use_rope:
            cos, sin = context["rope"][self.head_dim]
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return q, k, v


class HypeNetAttention(HypeNetMixer):
    def __init__(self, config, layer_idx):
        super().__init__(
            config,
            layer_idx,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.attn_use_rope,
            config.attn_use_qk_norm,
        )
        self.dropout = config.attention_dropout
        self.o_gate = None
        if config.attn_use_output_gate:
            self.o_gate = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=False)

    def forward(self, x, context, cache=None):
        q, k, v = self.project(x, context)
        if context["logit_scale"] is not None:
            q = (q.float() * context["logit_scale"][:, None, :, None]).to(q.dtype)
        if cache is not None:
            k, v = cache.append(self.layer_idx, k, v)
        times = self.heads // self.kv_heads
        allowed = context["allowed"]
        out = F.scaled_dot_product_attention(
            q,
            repeat_heads(k, times),
            repeat_heads(v, times),
            attn_mask=allowed,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=allowed is None and q.shape[2] > 1,
            scale=self.head_dim**-0.5,
        )
        out = out.transpose(1, 2).flatten(2)
        if self.o_gate is not None:
            out = out * torch.sigmoid(self.o_gate(x))
        return self.o_proj(out)


class HypeNetLightningAttention(HypeNetMixer):
    def __init__(self, config, layer_idx):
        super().__init__(
            config,
            layer_idx,
            config.lightning_nh,
            config.lightning_nkv,
            config.lightning_head_dim,
            config.lightning_use_rope,
            config.lightning_use_qk_norm,
        )
        width = self.heads * self.head_dim
        self.slopes = decay_slopes(self.heads)
        self.scale = {"1/sqrt(d)": self.head_dim**-0.5, "1/d": 1 / self.head_dim, "none": 1.0}[
            config.lightning_scale
        ]
        self.o_norm = (
            HypeNetRMSNorm(width, config.rms_norm_eps) if config.lightning_use_output_norm else None
        )
        self.z_proj = None
        if config.lightning_use_output_gate:
            self.z_proj = nn.Linear(config.hidden_size, width, bias=config.attention_bias)

    def forward(self, x, context, cache=None):
        q, k, v = self.project(x, context)
        times = self.heads // self.kv_heads
        with torch.autocast(x.device.type, enabled=False):  # the state stays fp32
            out, state = lightning_attention(
                q.float(),
                repeat_heads(k, times).float(),
                repeat_heads(v, times).float(),
                torch.tensor(self.slopes, dtype=torch.float32, device=x.device),
                self.scale,
                context["counts"],
                context["valid"],
                None if cache is None else cache.state(self.layer_idx),
            )
        if cache is not None:
            cache.set_state(self.layer_idx, state)
        out = out.to(x.dtype).transpose(1, 2).flatten(2)
        if self.o_norm is not None:
            out = self.o_norm(out)
        if self.z_proj is not None:
            out = out * torch.sigmoid(self.z_proj(x))
        return self.o_proj(out)


class HypeNetDecoderLayer(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        mixer = (
            HypeNetAttention
            if config.mixer_types[layer_idx] == ATTENTION
            else HypeNetLightningAttention
        )
        self.self_attn = mixer(config, layer_idx)
        self.mlp = HypeNetMLP(config)
        self.input_layernorm = HypeNetRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = HypeNetRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden, context, cache=None):
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), context, cache)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class HypeNetPreTrainedModel(PreTrainedModel):
    config_class = HypeNetConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HypeNetDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_sdpa = True
    # A state cannot be wound back, so there is no assisted decoding; and the model makes the cache.
    _is_stateful = True

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False


class HypeNetModel(HypeNetPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [HypeNetDecoderLayer(config, i) for i in range(config.num_hidden_layers)]
        )
        self.norm = HypeNetRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.logit_scale = parse_logit_scale(config.attn_logits_scaling)
        # Plain numbers rather than buffers: they stay exact in every type of weights.
        sizes = set()
        if config.attn_use_rope and config.layers_of(ATTENTION):
            sizes.add(config.head_dim)
        if config.lightning_use_rope and config.layers_of(LIGHTNING):
            sizes.add(config.lightning_head_dim)
        self.rotary = {size: rotary_frequencies(config, size) for size in sizes}
        self.gradient_checkpointing = False
        self.post_init()

    def rotary_tables(self, positions):
        """{head size: (cos, sin)}, [B or 1, T, d / 2] each."""
        tables = {}
        for size, (frequencies, magnitude) in self.rotary.items():
            t = in_double(positions)[..., None]
            angles = t * torch.tensor(frequencies, dtype=t.dtype, device=t.device)
            tables[size] = tuple(
                (x * magnitude).to(device=positions.device, dtype=torch.float32)
                for x in (angles.cos(), angles.sin())
            )
        return tables

    def logit_scales(self, positions):
        """[B or 1, T], or None where there is no scaling."""
        if self.logit_scale is None:
            return None
        kind, value = self.logit_scale
        if kind == "constant":
            return torch.full(positions.shape, value, dtype=torch.float32, device=positions.device)
        scales = torch.log(in_double(positions) + value) / math.log(value)
        return scales.to(device=positions.device, dtype=torch.float32)

    def valid_tokens(self, attention_mask, rows, length, past, device):
        """(valid, all_valid): bool [B, T] of this call, [B, S] of all; None: nothing is padding."""
        known = None if past is None else past.valid
        if attention_mask is not None:
            if (
                attention_mask.dim() != 2
                or attention_mask.shape[0] != rows
                or attention_mask.shape[1] < length
            ):
                raise ValueError(
                    f"attention_mask is {tuple(attention_mask.shape)}; "
                    f"expected [{rows}, tokens], at least {length} of them"
                )
            attention_mask = attention_mask[:, -length:].to(device=device, dtype=torch.bool)
        if known is None and (attention_mask is None or bool(attention_mask.all())):
            return None, None
        ones = torch.ones(rows, length, dtype=torch.bool, device=device)
        valid = ones if attention_mask is None else attention_mask
        before = 0 if past is None else past.seen
        if known is None:
            known = torch.ones(rows, before, dtype=torch.bool, device=device)
        return valid, torch.cat([known.to(device), valid], dim=1)

    def allowed_keys(self, length, before, all_valid, device):
        """[B or 1, 1, T, S] bool: which keys a query sees; None: all up to its own."""
        if all_valid is None and (before == 0 or length == 1):
            return None
        keys = torch.arange(before + length, device=device)
        queries = torch.arange(before, before + length, device=device)[:, None]
        if all_valid is None:
            return (keys <= queries)[None, None]
        # A padding query sees itself, so that no softmax is over nothing; nobody sees it.
        return ((keys <= queries) & all_valid[:, None, None]) | (keys == queries)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        cache=None,
        **kwargs,
    ):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds is needed")
        if output_attentions:
            raise ValueError("output_attentions: Lightning layers have no attention weights")
        past = cache if cache is not None else past_key_values
        if past is not None and not isinstance(past, HypeNetCache):
            raise ValueError(f"the cache is a {type(past).__name__}; expected a HypeNetCache")
        checkpointing = self.gradient_checkpointing and self.training and past is None
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        use_cache = (use_cache or past is not None) and not checkpointing
        if use_cache and past is None:
            past = HypeNetCache(self.config)

        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        rows, length = hidden.shape[:2]
        before = 0 if past is None else past.seen
        valid, all_valid = self.valid_tokens(attention_mask, rows, length, past, hidden.device)
        if valid is None:
            counts = torch.arange(1, length + 1, device=hidden.device)[None]
        else:
            counts = valid.long().cumsum(1)
        start = before if past is None or past.counts is None else past.counts.to(hidden.device)
        if position_ids is None:
            position_ids = (counts + start - 1).clamp(min=0)
        context = {
            "rope": self.rotary_tables(position_ids),
            "logit_scale": self.logit_scales(position_ids),
            "counts": counts,
            "valid": valid,
            "allowed": self.allowed_keys(length, before, all_valid, hidden.device),
        }

        states = (hidden,) if output_hidden_states else None
        for layer in self.layers:
            if checkpointing:
                hidden = self._gradient_checkpointing_func(layer.__call__, hidden, context)
            else:
                hidden = layer(hidden, context, past if use_cache else None)
            if states is not None:
                states += (hidden,)
        hidden = self.norm(hidden)
        if states is not None:
            states = states[:-1] + (hidden,)
        if use_cache:
            past.advance(length, all_valid, None if all_valid is None else start + counts[:, -1:])

        output = BaseModelOutputWithPast(
            last_hidden_state=hidden,
            hidden_states=states,
            **{_CACHE_FIELD: past if use_cache else None},
        )
        return output.to_tuple() if return_dict is False else output


class HypeNetForCausalLM(HypeNetPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HypeNetModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        cache=None,
        **kwargs,
    ):
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            cache=cache,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            **{_CACHE_FIELD: getattr(output, _CACHE_FIELD)},
        )
        return output.to_tuple() if return_dict is False else output
