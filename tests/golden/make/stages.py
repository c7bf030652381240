"""The conversion: transfer and training stages (docs/math/hypenet.md 2.1, 2.2) from the teacher
qwen3-tiny.
"""

import math

import numpy as np

import model
import tensors
from common import generator, write_expected, write_json, write_weights
from folders import stage_results, values
from models import draw_weights, hybrid_config, mixer_shapes, model_shapes, plain_config


def expanded(config, name, array):
    """Key and value heads repeated to the query's number."""
    if not any(part in name for part in ("k_proj", "v_proj")):
        return array
    groups, heads = config["num_key_value_heads"], config["num_attention_heads"]
    parts = array.reshape(groups, -1, *array.shape[1:])
    return parts[np.arange(heads) // (heads // groups)].reshape(-1, *array.shape[1:])


def lightning_of(config, teacher, layer, random):
    """The mixer that layer `layer` gets in stage 1 under `random-gates`."""
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
