"""The recurrence alone, and tables of numbers."""

import math

import numpy as np

import model
import tensors
from common import generator, write_json
from folders import lightning_case

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


def late_rate(update, peak, least, steps):
    """One update late: the first has rate 0."""
    k = update - 1
    if k <= WARM_UP:
        return peak * k / WARM_UP
    return least + (peak - least) * (1 + math.cos(math.pi * (k - WARM_UP) / (steps - WARM_UP))) / 2


def make_schedules(root):
    updates = (1, 2, 3, 26, 50, 51, 52, 100, 275, 500, 1000, 5000, 10_025, 15_000, 19_999, 20_000)
    write_json(root / "lr-schedule" / "expected.json", {
        stage: {"lr": peak, "min_lr": least, "warmup": WARM_UP, "steps": steps,
                "lr_used_in_update": {str(k): late_rate(k, peak, least, steps)
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
    make_lightning(root)
    make_logit_scales(root)
    make_schedules(root)
    make_rope(root)
    make_selection(root)
