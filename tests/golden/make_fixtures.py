#!/usr/bin/env python3
"""Makes the golden fixtures of tests/golden/fixtures: random tiny models and inputs, and what the
float64 reference in reference/ computes of them. make/ has the parts.

    tests/golden/make_fixtures.py OUT           (needs numpy; 2.4.6 made those that are kept)
    tests/golden/make_fixtures.py --compare TREE

The second makes them anew and compares: weights and inputs must be equal, results within 1e-6 of
the largest value (numpy's sums may differ by version and processor). Exit 1 if they are not.
Weights are bfloat16 numbers, so that every program starts from the same values; results are stored
as fp32. tests/golden/fixtures/README.md describes the folders; make_tokenizers.py makes tokenizer/.
"""

import json
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "make"), str(HERE / "reference")]

import numpy as np  # noqa: E402

import models  # noqa: E402
import stages  # noqa: E402
import tables  # noqa: E402
import tensors  # noqa: E402

CLOSE = 1e-6  # of the largest value, between two machines' results


def make_all(root):
    models.make_models(root)
    models.make_options(root)
    stages.make_transfer(root)
    stages.make_stage_losses(root)
    tables.make_all(root)


def is_close(a, b):
    """Of two JSON values."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= CLOSE * abs(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(is_close(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(is_close, a, b))
    return a == b


def differing(made, kept):
    """The names of what differs: bytes, or results beyond CLOSE."""
    if made.suffix == ".json":
        return [] if is_close(*(json.loads(p.read_text()) for p in (made, kept))) else [made.name]
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
