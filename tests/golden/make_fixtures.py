#!/usr/bin/env python3
"""Makes the golden fixtures of tests/golden/fixtures: random tiny models and inputs, and what the
float64 reference in reference/ computes of them.

    tests/golden/make_fixtures.py OUT           (needs numpy; 2.4.6 made those that are kept)
    tests/golden/make_fixtures.py --compare TREE

The second makes them anew and compares: weights and inputs must be equal, results within 1e-6 of
the largest value (numpy's sums may differ by version and processor). Exit 1 if they are not.
Weights are bfloat16 numbers, so that every program starts from the same values; results are stored
as fp32. tests/golden/fixtures/README.md describes the folders; make_tokenizers.py makes tokenizer/.
"""

import json
import math
import pathlib
import sys
import tempfile
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "reference"))

import numpy as np  # noqa: E402

import model  # noqa: E402
import tensors  # noqa: E402
from folders import lightning_case, stage_results, values  # noqa: E402

CLOSE = 1e-6        # of the largest value, between two machines' results
CLEAR_WINNER = 0.02  # least gap between the best and the second logit of a greedy step

COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None,
          "attention_bias": False, "tie_word_embeddings": True, "max_position_embeddings": 4096,
          "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 1}
SMALL = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8}
ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM",
                 "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
                 "hypenet": "HypeNetForCausalLM"}


def generator(*name):
    """A stream of random numbers of its own for every name, the same in every version of numpy."""
    return np.random.RandomState(zlib.crc32(repr(name).encode()))


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


# ---- Weights: the tensors of 1.4.


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


# ---- Folders.


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_weights(path, arrays, dtype="BF16"):
    tensors.write(path, {name: (array, dtype) for name, array in arrays.items()})


def write_expected(path, integers, floats):
    tensors.write(path, {**{n: (x, "I64") for n, x in integers.items()},
                         **{n: (x, "F32") for n, x in floats.items()}})


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


# ---- Conversion (2.1, 2.2), from the teacher qwen3-tiny.


def expanded(config, name, array):
    """Key and value heads repeated to the query's number."""
    if not any(part in name for part in ("k_proj", "v_proj")):
        return array
    groups, heads = config["num_key_value_heads"], config["num_attention_heads"]
    parts = array.reshape(groups, -1, *array.shape[1:])
    return parts[np.arange(heads) // (heads // groups)].reshape(-1, *array.shape[1:])


def lightning_of(config, teacher, layer, random):
    """The mixer that layer `layer` gets in stage 1 under `paper`."""
    prefix, hidden = f"model.layers.{layer}.self_attn.", config["hidden_size"]
    out = {n: expanded(config, n, x) for n, x in teacher.items() if n.startswith(prefix)}
    width = config["num_attention_heads"] * config["head_dim"]
    out[prefix + "o_norm.weight"] = np.ones(width)
    out[prefix + "z_proj.weight"] = tensors.round_to_bf16(
        random.uniform(-1, 1, (width, hidden)) / math.sqrt(hidden))
    return out


def started(config, teacher, ids):
    """What `match` and `lsq` find on ids for lightning mixers in all layers, "match.NAME"."""
    source = model.Decoder(plain_config("qwen3", 3, rope_theta=1e6), values(teacher))
    every = {**config, "mixer_types": ["lightning-attn"] * config["num_hidden_layers"]}
    stream, at, out = source.embed(ids), np.arange(len(ids)), {}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.self_attn."
        x = source.mixer_input(layer, stream)
        heads, target = source.heads(layer, x, at).data, source.mixer(layer, x, at)
        o_norm = np.sqrt((heads ** 2).mean(axis=0))
        mixer = lightning_of(config, teacher, layer, generator("unused"))
        mixer.update({prefix + "o_norm.weight": o_norm,
                      prefix + "z_proj.weight": 0 * mixer[prefix + "z_proj.weight"]})
        y = model.Decoder(every, values(mixer)).heads(layer, x, at).data
        gram = y.T @ y
        gram += 1e-6 * gram.diagonal().mean() * np.eye(len(gram))
        out.update({f"match.{prefix}o_norm.weight": o_norm,
                    f"match.{prefix}o_proj.weight": 2 * teacher[prefix + "o_proj.weight"],
                    f"lsq.{prefix}o_norm.weight": o_norm,
                    f"lsq.{prefix}o_proj.weight": np.linalg.solve(gram, y.T @ target.data).T})
        stream = stream + target
        stream = stream + source.mlp(layer, stream)
    return out


def make_transfer(root):
    folder, config = root / "transfer", hybrid_config("lal", rope_theta=1e6)
    teacher = tensors.read(root / "qwen3-tiny" / "model.safetensors")
    random = generator("transfer")
    stage1, stage2, student = {}, {}, {}
    for name, array in teacher.items():
        stage2["teacher_model." + name] = array
        if ".self_attn." in name:
            stage1["model." + name.replace("self_attn.", "self_attn.teacher_layer.")] = array
        else:
            stage1["model." + name] = student[name] = array
    for layer, kind in enumerate(config["mixer_types"]):
        prefix = f"model.layers.{layer}.self_attn."
        own = lightning_of(config, teacher, layer, random)
        stage1.update({"model." + n.replace("self_attn.", "self_attn.student_layer."): x
                       for n, x in own.items()})
        if kind == "attn":
            own = {n: x for n, x in teacher.items() if n.startswith(prefix)}
            own[prefix + "o_gate.weight"] = tensors.round_to_bf16(
                0.02 * random.standard_normal((32, config["hidden_size"])))
        student.update(own)
    stage2.update({"student_model." + n: x for n, x in student.items()})
    ids = generator("transfer", "ids").randint(config["vocab_size"], size=(1, 70))
    decoder = model.Decoder(config, values(student))
    write_json(folder / "config.json", config)
    write_weights(folder / "stage1" / "model.safetensors", stage1)
    write_weights(folder / "stage2" / "model.safetensors", stage2)
    is_free = ("z_proj", "o_gate")
    write_json(folder / "tensors.json", {
        f"{stage}_deterministic": [n for n in names if not any(part in n for part in is_free)]
        for stage, names in (("stage1", stage1), ("stage2", stage2))})
    write_expected(folder / "expected.safetensors", {"input_ids": ids},
                   {"stage2_student_logits": decoder.run(ids[0])[0].data[None],
                    **started(config, teacher, ids[0])})


def make_stage_losses(root):
    folder, config = root / "stage-losses", hybrid_config("lal", rope_theta=1e6)
    all_lightning = {}
    for layer in range(config["num_hidden_layers"]):
        all_lightning.update(mixer_shapes(config, layer, "lightning-attn"))
    stage1 = draw_weights(all_lightning, "stage 1")
    write_weights(folder / "stage1-student" / "model.safetensors", {
        "model." + n.replace("self_attn.", "self_attn.student_layer."): x
        for n, x in stage1.items()})
    write_json(folder / "student" / "config.json", config)
    write_weights(folder / "student" / "model.safetensors",
                  draw_weights(model_shapes(config), "student"))
    random, vocab = generator("stage-losses", "ids"), config["vocab_size"]
    integers = {"batch": random.randint(vocab, size=(2, 70)),
                "step_batches": random.randint(vocab, size=(10, 2, 40))}
    floats = {}
    for stage, rate in ((1, 1e-2), (2, 3e-3), (3, 1e-3)):
        floats[f"stage{stage}.lr"] = np.array(rate)
        results = stage_results(folder, stage, integers["batch"], integers["step_batches"], rate)
        kept = [".grad." if stage < 3 else ".grad.model.embed", ".final.model.norm"]
        kept += [f".final.{of}layers.1.self_attn." for of in ("model.", "model.model.")]
        for name, array in results.items():
            if name.count(".") == 1 or any(part in name for part in kept):
                floats[name] = array
    write_expected(folder / "expected.safetensors", integers, floats)


# ---- Operations and tables.

# name: (rows, tokens, heads, dk, dv, boundaries of packed sequences)
LIGHTNING_CASES = {"t1": (2, 1, 5, 8, 8, None), "t63": (1, 63, 3, 8, 12, None),
                   "t64": (1, 64, 2, 16, 16, None), "t65": (2, 65, 2, 8, 8, None),
                   "t200": (1, 200, 3, 8, 8, None),
                   "varlen": (1, 150, 3, 8, 8, [0, 1, 17, 81, 81, 150])}
SLOPE_HEADS = [*range(1, 17), 20, 24, 25, 28, 32, 40, 48, 64]


def make_lightning(root):
    folder, cases, inputs = root / "lightning-op", {}, {}
    for name, (rows, tokens, heads, dk, dv, bounds) in LIGHTNING_CASES.items():
        random = generator("lightning", name)
        cases[name] = {"batch": rows, "length": tokens, "heads": heads, "dk": dk, "dv": dv,
                       "scale": dk ** -0.5, "slopes": model.slopes(heads).tolist()}
        states = len(bounds) - 1 if bounds else rows
        shapes = {"q": (rows, tokens, heads, dk), "k": (rows, tokens, heads, dk),
                  "v": (rows, tokens, heads, dv), "do": (rows, tokens, heads, dv),
                  "state0": (states, heads, dk, dv), "dstate": (states, heads, dk, dv)}
        for what, shape in shapes.items():
            inputs[f"{name}.{what}"] = (
                tensors.round_to_bf16(random.standard_normal(shape)), "BF16")
        if bounds:
            inputs[name + ".cu_seqlens"] = (np.array(bounds), "I64")
    known, results = {n: x for n, (x, _) in inputs.items()}, {}
    for name, case in cases.items():
        for start in ("with_state", "no_state"):
            for what, array in lightning_case(known, name, case, start):
                # From zero every case has its outputs, two have gradients too.
                if start == "with_state" or what in ("o", "state") or (
                        what != "dstate0" and name in ("t65", "varlen")):
                    results[f"{name}.{start}.{what}"] = (array, "F32")
    write_json(folder / "cases.json", cases)
    write_json(folder / "slopes.json", {
        str(h): {"fp32": [float(np.float32(s)) for s in model.slopes(h)]} for h in SLOPE_HEADS})
    tensors.write(folder / "expected.safetensors", {**inputs, **results})


def make_logit_scales(root):
    write_json(root / "logit-scale" / "expected.json", [
        {"a": a, "s": math.log(t + a) / math.log(a), "t": t}
        for a in (500.0, 2.0, 100.0, 362.0, 3000.0)
        for t in (0, 1, 511, 16_383, 131_071, 1_048_575)])


# The published settings of each stage and size.
RATES = {"stage1": (1e-3, 1e-5, 20_000), "stage2-2b": (1e-4, 1e-5, 20_000),
         "stage2-5b": (5e-5, 1e-5, 20_000), "stage2-9b": (3e-5, 1e-5, 20_000),
         "stage3": (1e-5, 1e-5, 500)}
WARM_UP = 50


def paper_rate(update, peak, least, steps):
    """One update late: the first has rate 0."""
    k = update - 1
    if k <= WARM_UP:
        return peak * k / WARM_UP
    return least + (peak - least) * (1 + math.cos(math.pi * (k - WARM_UP) / (steps - WARM_UP))) / 2


def make_schedules(root):
    updates = (1, 2, 3, 26, 50, 51, 52, 100, 275, 500, 1000, 5000, 10_025, 15_000, 19_999, 20_000)
    write_json(root / "lr-schedule" / "expected.json", {
        stage: {"lr": peak, "min_lr": least, "warmup": WARM_UP, "steps": steps,
                "lr_used_in_update": {str(k): paper_rate(k, peak, least, steps)
                                      for k in updates if k <= steps}}
        for stage, (peak, least, steps) in RATES.items()})


def make_rope(root):
    write_json(root / "rope" / "expected.json", [
        {"head_dim": size, "theta": theta, "inv_freq_fp32": [
            float(np.float32(f)) for f in model.rope_frequencies({"rope_theta": theta}, size)[0]]}
        for size, theta in ((128, 1e6), (64, 1e5), (64, 5e5), (16, 1e4), (6, 1e4))])


def make_selection(root):
    """A made-up sweep: in whole thousandths, so that there are ties; layer 4 beyond the cap."""
    layers, random = 13, generator("selection")
    tasks = ["recall_a", "recall_b", "commonsense_a", "commonsense_b"]
    table = random.randint(400, 700, size=(layers, 4))
    table[7] = table[2]                          # a tie: the lower layer comes first
    table[4, 2:] = table[:, 2:].max(axis=0)      # best in commonsense, so only recall falls
    table[4, :2] = table[:, :2].min(axis=0) - 50
    recall, commonsense = table[:, :2].mean(axis=1) / 1000, table[:, 2:].mean(axis=1) / 1000
    scores = [min(50.0, (recall.max() - r) / (commonsense.max() - c + 1e-10))
              for r, c in zip(recall, commonsense)]
    ranking = sorted(range(layers), key=lambda i: (-scores[i], i))
    keep = layers // 4
    lines = [",".join(["layer", *tasks]), "original,0.9,0.9,0.9,0.9"]
    for layer in reversed(range(layers)):
        lines.append(",".join([str(layer), *(f"{x / 1000:.3f}" for x in table[layer])]))
    folder = root / "selection"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layer-sweep-made.csv").write_text("\n".join(lines) + "\n")
    write_json(folder / "expected-made.json", {"keep": keep, "selected": sorted(ranking[:keep]),
                                               "ranking": ranking, "scores": scores})


def make_all(root):
    make_models(root)
    make_options(root)
    make_transfer(root)
    make_stage_losses(root)
    make_lightning(root)
    make_logit_scales(root)
    make_schedules(root)
    make_rope(root)
    make_selection(root)


# ---- Comparison of two trees.


def differing(made, kept):
    """The names of what differs: bytes, or results beyond CLOSE."""
    if made.name != "expected.safetensors":
        same = made.read_bytes() == kept.read_bytes()
        return [] if same else [made.name]
    a, b = tensors.read(made), tensors.read(kept)
    if a.keys() != b.keys():
        return ["names"]
    return [name for name in a
            if a[name].shape != b[name].shape or
            np.abs(a[name] - b[name]).max(initial=0) > CLOSE * np.abs(b[name]).max(initial=1e-30)]


def compare(kept):
    with tempfile.TemporaryDirectory() as folder:
        made, bad, count = pathlib.Path(folder), 0, 0
        make_all(made)
        for path in sorted(p for p in made.rglob("*") if p.is_file()):
            name, count = path.relative_to(made), count + 1
            other = kept / name
            names = differing(path, other) if other.exists() else ["it is not there"]
            if names:
                print(f"{name} differs: {', '.join(names)}")
                bad += 1
    print(f"{count} files, {bad} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        sys.exit(compare(pathlib.Path(sys.argv[2])))
    make_all(pathlib.Path(sys.argv[1]))
