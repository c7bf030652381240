#!/usr/bin/env python3
"""Recomputes a tree of golden fixtures with the float64 reference in reference/ and prints, folder
by folder, the largest difference from what the fixtures say, as a share of the largest value.

    tests/golden/check_reference.py ROOT        (needs numpy)

Exit 1 if one is above 1e-4, or if the tree has nothing that can be recomputed. `make_fixtures.py`
computes its expected values with the same reference: on a tree that something else made, this
shows that the reference is right.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "reference"))

import numpy as np  # noqa: E402

import model  # noqa: E402
import tensors  # noqa: E402
from folders import lightning_case, load, stage_results, values  # noqa: E402

WORST = 1e-4


class Differences:
    def __init__(self):
        self.found = {}

    def add(self, what, got, want):
        got, want = np.asarray(got), np.asarray(want)
        assert got.shape == want.shape, (what, got.shape, want.shape)
        largest = max(float(np.abs(want).max(initial=0)), 1e-30)
        error = float(np.abs(got - want).max(initial=0)) / largest
        self.found[what] = max(error, self.found.get(what, 0))

    def line(self, name):
        worst = sorted(self.found.items(), key=lambda item: -item[1])[:3]
        return f"{name}: " + ", ".join(f"{what} {error:.1e}" for what, error in worst)


def check_model(folder, d):
    decoder, expected = load(folder), tensors.read(folder / "expected.safetensors")
    runs = [decoder.run(ids) for ids in expected["input_ids"]]
    d.add("logits", [logits.data for logits, _ in runs], expected["logits"])
    if "hidden" in expected:
        after = np.array([[h.data for h in hidden] for _, hidden in runs]).swapaxes(0, 1)
        d.add("hidden", after, expected["hidden"])
    if "position_ids_offset" in expected:
        moved = [decoder.run(ids, at)[0].data for ids, at in
                 zip(expected["input_ids"], expected["position_ids_offset"])]
        d.add("logits, offset", moved, expected["logits_offset_exact_angles"])
    if "greedy_ids" in expected:
        ids, rows = decoder.greedy(expected["prompt_ids"][0], expected["greedy_ids"].shape[1])
        d.add("greedy ids", ids, expected["greedy_ids"][0])
        d.add("greedy logits", rows, expected["greedy_logits"][0])


def check_lightning(folder, d):
    expected = tensors.read(folder / "expected.safetensors")
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        for start in ("with_state", "no_state"):
            for what, got in lightning_case(expected, name, case, start):
                key = f"{name}.{start}.{what}"
                if key in expected:
                    d.add(what, got, expected[key])
    for heads, entry in json.loads((folder / "slopes.json").read_text()).items():
        d.add("slopes", model.slopes(int(heads)), entry["fp32"])


def check_transfer(folder, d):
    config = json.loads((folder / "config.json").read_text())
    stage1 = tensors.read(folder / "stage1" / "model.safetensors")
    stage2 = tensors.read(folder / "stage2" / "model.safetensors")
    expected = tensors.read(folder / "expected.safetensors")
    own = {n.removeprefix("student_model."): x for n, x in stage2.items()
           if n.startswith("student_model.")}
    built = {}
    for name, array in stage1.items():
        name = name.removeprefix("model.")
        for kind, mixer in (("teacher_layer.", "attn"), ("student_layer.", "lightning-attn")):
            if kind in name:
                layer = int(name.split(".")[2])
                name = name.replace(kind, "") if config["mixer_types"][layer] == mixer else ""
        if name:
            built[name] = array
    built.update({n: x for n, x in own.items() if n.endswith("o_gate.weight")})
    for what, weights in (("logits from stage 1", built), ("logits from stage 2", own)):
        decoder = model.Decoder(config, values(weights))
        d.add(what, [decoder.run(ids)[0].data for ids in expected["input_ids"]],
              expected["stage2_student_logits"])


def check_stage_losses(folder, d):
    expected = tensors.read(folder / "expected.safetensors")
    for stage in (1, 2, 3):
        got = stage_results(folder, stage, expected["batch"], expected["step_batches"],
                            float(expected[f"stage{stage}.lr"]))
        for name in expected:
            if name in got:
                what = name.split(".")[1]
                d.add(f"stage {stage} {what}", got[name], expected[name])


def check_logit_scale(folder, d):
    rows = json.loads((folder / "expected.json").read_text())
    got = [model.logit_scale(f"hype {row['a']}", np.array([row["t"]]))[0] for row in rows]
    d.add("s", got, [row["s"] for row in rows])


def check_rope(folder, d):
    for row in json.loads((folder / "expected.json").read_text()):
        got, _ = model.rope_frequencies({"rope_theta": row["theta"]}, row["head_dim"])
        d.add("frequencies", got / row["inv_freq_fp32"], np.ones(len(got)))


CHECKS = {"transfer": check_transfer, "stage-losses": check_stage_losses,
          "lightning-op": check_lightning, "logit-scale": check_logit_scale, "rope": check_rope}


def main():
    root = pathlib.Path(sys.argv[1])
    worst, count = 0.0, 0
    folders = sorted(p for p in root.rglob("*") if p.is_dir())
    for folder in folders:
        check = CHECKS.get(folder.name)
        files = ("config.json", "model.safetensors", "expected.safetensors")
        if check is None and all((folder / file).exists() for file in files):
            check = check_model
        if check is None:
            continue
        d = Differences()
        check(folder, d)
        print(d.line(str(folder.relative_to(root))), flush=True)
        worst, count = max([worst, *d.found.values()]), count + 1
    print(f"{count} folders, worst {worst:.1e}")
    return 0 if count and worst <= WORST else 1


if __name__ == "__main__":
    sys.exit(main())
