"""What the folders of a golden tree hold, loaded and recomputed."""

import json

import numpy as np

import model
import tensors
import training
from tape import Value


def values(arrays):
    return {name: Value(array) for name, array in arrays.items()}


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    return model.Decoder(config, values(tensors.read(folder / "model.safetensors")))


def lightning_case(expected, name, case, start):
    """(what, array) of one case from its initial state or from zero, sequences laid end to end."""
    slope, scale = np.array(case["slopes"]), case["scale"]
    bounds = expected.get(name + ".cu_seqlens")
    q, k, v, d_o = (expected[f"{name}.{part}"] for part in ("q", "k", "v", "do"))
    pieces = ([(row, slice(None)) for row in range(len(q))] if bounds is None
              else [(0, slice(a, b)) for a, b in zip(bounds[:-1], bounds[1:])])
    results = {what: [] for what in ("o", "state", "dq", "dk", "dv", "dstate0")}
    for s, (row, part) in enumerate(pieces):
        zero = np.zeros_like(expected[name + ".state0"][s])
        state = expected[name + ".state0"][s] if start == "with_state" else zero
        inputs = [x[row, part] for x in (q, k, v)]
        o, states = model.lightning(*inputs, slope, scale, state)
        grads = model.lightning_gradients(*inputs, slope, scale, states, d_o[row, part],
                                          expected[name + ".dstate"][s])
        for what, x in zip(results, (o if len(o) else np.zeros_like(inputs[2]), states[-1], *grads)):
            results[what].append(x)
    for what, parts in results.items():
        is_state = what in ("state", "dstate0")
        yield what, np.array(parts) if is_state or bounds is None else np.concatenate(parts)[None]


def stage_student(folder, stage):
    """The student as the stage starts with it, and the name of each weight in expected files."""
    config = json.loads((folder / "student" / "config.json").read_text())
    if stage > 1:
        weights = tensors.read(folder / "student" / "model.safetensors")
        return model.Decoder(config, values(weights)), lambda name: name
    config["mixer_types"] = ["lightning-attn"] * config["num_hidden_layers"]
    stored = tensors.read(folder / "stage1-student" / "model.safetensors")
    weights = {n.removeprefix("model.").replace("student_layer.", ""): x
               for n, x in stored.items()}
    return model.Decoder(config, values(weights)), lambda name: "model." + name.replace(
        "self_attn.", "self_attn.student_layer.")


def stage_results(folder, stage, batch, step_batches, rate):
    """name -> array, all that expected.safetensors may hold of a stage."""
    teacher = load(folder.parent / "qwen3-tiny")
    student, stored = stage_student(folder, stage)
    prefix, out = f"stage{stage}.", {}

    def loss_of(rows):
        if stage == 1:
            losses = training.align_losses(student, teacher, rows)
            out.setdefault(prefix + "layer_mse", np.array([float(x.data) for x in losses]))
            return training.mean(losses)
        if stage == 2:
            return training.kl_loss(student, teacher, rows)
        return training.cross_entropy(student, rows)

    loss = loss_of(batch)
    grads = training.gradients(loss, student.weights)
    out[prefix + "loss"], out[prefix + "grad_norm"] = loss.data, training.norm(grads)
    out.update({prefix + "grad." + stored(name): g for name, g in grads.items()})
    without = [float(loss_of(rows).data) for rows in step_batches]
    optimizer, losses, norms = training.AdamW(student.weights), [], []
    for rows in step_batches:
        loss = loss_of(rows)
        losses.append(float(loss.data))
        norms.append(optimizer.step(training.gradients(loss, student.weights), rate))
    out[prefix + "step_losses_without_training"] = np.array(without)
    out[prefix + "step_losses"], out[prefix + "step_grad_norms"] = np.array(losses), np.array(norms)
    out.update({prefix + "final." + stored(n): w.data for n, w in student.weights.items()})
    return out
