"""Tiny models of every kind with random weights, and what they compute."""

import math

import numpy as np

import model
import tensors
from common import generator, write_expected, write_json, write_weights
from folders import values

CLEAR_WINNER = 0.02  # least gap between the best and the second logit of a greedy step

COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None,
          "attention_bias": False, "tie_word_embeddings": True, "max_position_embeddings": 4096,
          "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 1}
SMALL = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8}
ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM",
                 "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
                 "hypenet": "HypeNetForCausalLM"}


def plain_config(family, layers, **changes):
    return {"model_type": family, "architectures": [ARCHITECTURES[family]],
            "num_hidden_layers": layers, **SMALL, **COMMON, **changes}


def hybrid_config(mixers, **changes):
    """The published settings, tiny."""
    c = plain_config("hypenet", len(mixers))
    c.update(mixer_types=[{"a": "attn", "l": "lightning-attn"}[m] for m in mixers],
             attn_use_rope=False, attn_use_output_gate=True, attn_logits_scaling=None,
             lightning_scale="1/sqrt(d)", lightning_use_rope=True, lightning_use_qk_norm=True,
             lightning_use_output_norm=True, lightning_use_output_gate=True, expand_kv_proj=True)
    c.update(changes)
    c.setdefault("lightning_nh", c["num_attention_heads"])
    c.setdefault("lightning_nkv", c["lightning_nh"])
    c.setdefault("lightning_head_dim", c["head_dim"])
    return c


# Weights: the tensors of docs/math/hypenet.md 1.4.


def mixer_shapes(c, layer, kind=None):
    """name -> shape of a mixer's tensors, `kind` "attn" or "lightning-attn"."""
    kind = kind or (c.get("mixer_types") or ["attn"] * c["num_hidden_layers"])[layer]
    hidden, hybrid = c["hidden_size"], c["model_type"] == "hypenet"
    if kind == "attn":
        heads, kv_heads, size = (c["num_attention_heads"], c["num_key_value_heads"],
                                 model.head_dim(c))
        qk_norm = c.get("attn_use_qk_norm", True) and c["model_type"] in ("qwen3", "hypenet")
        gate, o_norm = ("o_gate" if c.get("attn_use_output_gate") else None), False
    else:
        heads, kv_heads, size = c["lightning_nh"], c["lightning_nkv"], c["lightning_head_dim"]
        qk_norm, o_norm = c["lightning_use_qk_norm"], c["lightning_use_output_norm"]
        gate = "z_proj" if c["lightning_use_output_gate"] else None
    shapes = {"q_proj.weight": (heads * size, hidden), "k_proj.weight": (kv_heads * size, hidden),
              "v_proj.weight": (kv_heads * size, hidden), "o_proj.weight": (hidden, heads * size)}
    if gate:
        shapes[gate + ".weight"] = (heads * size, hidden)
    if c["attention_bias"] or c["model_type"] == "qwen2":
        with_bias = ["q_proj", "k_proj", "v_proj"] + (["o_proj"] if c["attention_bias"] else [])
        with_bias += ["z_proj"] if gate == "z_proj" and hybrid else []
        shapes.update({f"{n}.bias": shapes[n + ".weight"][:1] for n in with_bias})
    if qk_norm:
        shapes.update({"q_norm.weight": (size,), "k_norm.weight": (size,)})
    if o_norm:
        shapes["o_norm.weight"] = (heads * size,)
    return {f"model.layers.{layer}.self_attn.{n}": s for n, s in shapes.items()}


def model_shapes(c):
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], hidden),
              "model.norm.weight": (hidden,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes.update(mixer_shapes(c, layer))
        shapes.update({prefix + "input_layernorm.weight": (hidden,),
                       prefix + "post_attention_layernorm.weight": (hidden,),
                       prefix + "mlp.gate_proj.weight": (inner, hidden),
                       prefix + "mlp.up_proj.weight": (inner, hidden),
                       prefix + "mlp.down_proj.weight": (hidden, inner)})
    return shapes


def draw(name, shape, random):
    """Of a size at which every parameter moves the logits."""
    if name.endswith("norm.weight"):
        x = random.uniform(0.8, 1.2, shape)
    elif name.endswith(".bias"):
        x = 0.1 * random.standard_normal(shape)
    else:
        x = random.standard_normal(shape) * (0.3 if "embed" in name else 1.2 / math.sqrt(shape[1]))
    return tensors.round_to_bf16(x)


def draw_weights(shapes, *seed):
    return {name: draw(name, shape, generator(*seed, name)) for name, shape in shapes.items()}


def clear_greedy(make, vocab, prompt, count):
    """A decoder, a prompt and its greedy continuation, of the first seed with clear winners."""
    for seed in range(1000):
        decoder = make(seed)
        ids = generator("prompt", seed).randint(vocab, size=(1, prompt))
        chosen, rows = decoder.greedy(ids[0], count)
        best = np.sort(rows, axis=1)[:, -2:]
        if (best[:, 1] - best[:, 0]).min() >= CLEAR_WINNER:
            return decoder, ids, chosen, rows
    raise RuntimeError("no seed has clear winners")


def make_model(folder, config, rows=1, tokens=70, greedy=0, hidden=False, offset=None):
    """`greedy` tokens are continued from a prompt; `offset`: positions of one more pass."""

    def make(seed):
        weights = draw_weights(model_shapes(config), folder.name, seed)
        return model.Decoder(config, values(weights))

    vocab, integers, floats = config["vocab_size"], {}, {}
    if greedy:
        decoder, integers["prompt_ids"], chosen, logits = clear_greedy(make, vocab, 20, greedy)
        integers["greedy_ids"], floats["greedy_logits"] = chosen[None], logits[None]
    else:
        decoder = make(0)
    integers["input_ids"] = generator(folder.name, "ids").randint(vocab, size=(rows, tokens))
    runs = [decoder.run(ids) for ids in integers["input_ids"]]
    if hidden:
        floats["hidden"] = np.array([[h.data for h in after] for _, after in runs]).swapaxes(0, 1)
    if offset is not None:
        at = integers["position_ids_offset"] = offset + np.arange(tokens)[None].repeat(rows, 0)
        floats["logits_offset_exact_angles"] = np.array(
            [decoder.run(ids, p)[0].data for ids, p in zip(integers["input_ids"], at)])
    floats["logits"] = np.array([logits.data for logits, _ in runs])
    write_json(folder / "config.json", config)
    write_weights(folder / "model.safetensors", {n: w.data for n, w in decoder.weights.items()})
    write_expected(folder / "expected.safetensors", integers, floats)


def make_models(root):
    make_model(root / "hypenet-small", hybrid_config("lala"), rows=2, greedy=16, hidden=True)
    make_model(root / "hypenet-hype",
               hybrid_config("la", num_attention_heads=6, head_dim=16, vocab_size=64,
                             tie_word_embeddings=False, rope_theta=1e6,
                             attn_logits_scaling="hype 500"),
               tokens=100, greedy=16, offset=100_000)
    make_model(root / "qwen3-tiny", plain_config("qwen3", 3, rope_theta=1e6), rows=2, tokens=40,
               greedy=16, hidden=True)
    make_model(root / "qwen3-untied",
               plain_config("qwen3", 2, num_attention_heads=6, num_key_value_heads=3,
                            tie_word_embeddings=False), tokens=40, greedy=16)
    make_model(root / "qwen2-biases", plain_config("qwen2", 2, num_key_value_heads=4), tokens=40,
               greedy=16)
    make_model(root / "llama-tiny", plain_config("llama", 2, tie_word_embeddings=False), tokens=40,
               greedy=16)
    ropes = {"llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}, "linear": {},
             "yarn": {"beta_fast": 32.0, "beta_slow": 1.0}}
    for kind, more in ropes.items():
        scaling = {"rope_type": kind, "factor": 8.0, **more}
        if kind != "linear":
            scaling["original_max_position_embeddings"] = 64
        layers, name = (2, kind) if kind == "llama3" else (1, "llama-" + kind)
        make_model(root / f"{name}-rope",
                   plain_config("llama", layers, head_dim=16, vocab_size=48, rope_scaling=scaling,
                                rope_theta=5e5, rms_norm_eps=1e-5), tokens=100)
    make_model(root / "mistral-tiny", plain_config("mistral", 2, sliding_window=None), tokens=40)
    make_model(root / "smollm-like",
               plain_config("llama", 2, num_attention_heads=9, num_key_value_heads=3,
                            rope_theta=1e5), tokens=40, greedy=16)


# One thing changed in each.
OPTIONS = {
    "no-output-norm": {"lightning_use_output_norm": False, "lightning_scale": "1/d"},
    "no-output-gate": {"lightning_use_output_gate": False},
    "no-qk-norm": {"lightning_use_qk_norm": False},
    "no-rope": {"lightning_use_rope": False},
    "scale-one": {"lightning_scale": "none", "lightning_use_output_norm": False},
    "attn-rope-no-gate": {"attn_use_rope": True, "attn_use_output_gate": False},
    "attn-no-qk-norm": {"attn_use_qk_norm": False},
    "grouped-kv": {"lightning_nkv": 2},
    "other-head-count": {"lightning_nh": 6, "lightning_nkv": 3},
    "other-head-size": {"lightning_head_dim": 12},
    "bias": {"attention_bias": True},
    "constant-logit-scale": {"attn_logits_scaling": 1.3},
    "hype-alone": {"attn_logits_scaling": "hype"},
    "underscore-name": {"mixer_types": ["lightning_attn", "attn"], "tie_word_embeddings": False},
}


def make_options(root):
    sizes = {"hidden_size": 24, "intermediate_size": 24, "vocab_size": 32}
    for name, changes in OPTIONS.items():
        make_model(root / "hypenet-options" / name, hybrid_config("la", **sizes, **changes),
                   tokens=66)
    # No key of HypeNet: attention everywhere, with RoPE and without gates.
    make_model(root / "hypenet-options" / "all-attention-defaults",
               plain_config("hypenet", 2, **sizes), tokens=40)
