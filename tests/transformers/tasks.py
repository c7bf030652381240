"""Scores the first items of evaluation tasks in transformers, as lm-evaluation-harness does, and compares every
item and figure with what `halo eval --tasks` says.

    TRANSFORMERS=5 tests/transformers/environment tests/transformers/tasks.py HALO MODEL DATA [ITEMS]

MODEL is run in fp32. Log-likelihoods may differ by 1e-3 nats; choices, written answers and figures are the same.
(The harness itself is compared with by comparisons/harness.py.) Exit 1 where something differs.
"""

import io
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import pyarrow
import torch
import transformers

CHOICE = ["hellaswag", "arc_easy", "arc_challenge", "piqa", "sciq", "boolq"]
QUESTIONS = ["squad_v1", "drop"]
TASKS = CHOICE + ["winogrande", "lambada"] + QUESTIONS
NATS = 1e-3


def read_items(data, task, count):
    with pyarrow.input_stream(str(data / f"{task}.jsonl.zst"), compression="zstd") as file:
        lines = io.TextIOWrapper(file, "utf-8")
        return [json.loads(line) for line, _ in zip(lines, range(count))]


class Reference:
    def __init__(self, directory):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def score(self, context, continuation):
        """(log-likelihood of the continuation, would greedy decoding write it?)"""
        spaces = len(context) - len(context.rstrip())
        if spaces:
            continuation, context = context[-spaces:] + continuation, context[:-spaces]
        before = len(self.tokenizer.encode(context))
        ids = self.tokenizer.encode(context + continuation)
        with torch.no_grad():
            logits = self.model(torch.tensor([ids[:-1]])).logits[0, before - 1:]
        wanted = torch.tensor(ids[before:])
        scores = logits.double().log_softmax(-1).gather(1, wanted[:, None]).sum().item()
        return scores, bool((logits.argmax(-1) == wanted).all())

    def write(self, prompt):
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            out = self.model.generate(ids, max_new_tokens=48, do_sample=False, stop_strings=["\n"],
                                      tokenizer=self.tokenizer, attention_mask=torch.ones_like(ids))
        return self.tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True).split("\n")[0]


def largest(values):
    return max(range(len(values)), key=lambda i: values[i])


def judge(reference, task, item):
    """(what the sample must say, {figure: value})"""
    if task == "lambada":
        words = item["text"].split(" ")
        score, greedy = reference.score(" ".join(words[:-1]), " " + words[-1])
        return {"loglikelihood": score, "greedy": greedy}, {"acc": float(greedy)}
    if task in QUESTIONS:
        answer = reference.write(f"{item['context']}\nQuestion: {item['question']}\nAnswer:")
        return {"answer": answer.strip()}, {}
    context = item["context"]
    if task == "winogrande":
        blank = context.index("_")
        pairs = [(context[:blank] + choice, " " + context[blank + 1:].strip()) for choice in item["choices"]]
    else:
        pairs = [(context, " " + choice) for choice in item["choices"]]
    scores = [reference.score(*pair)[0] for pair in pairs]
    figures = {"acc": float(largest(scores) == item["label"])}
    if task != "winogrande":
        by_length = [score / len(choice) for score, choice in zip(scores, item["choices"])]
        figures["acc_norm"] = float(largest(by_length) == item["label"])
    return {"loglikelihoods": scores, "choice": largest(scores), "label": item["label"]}, figures


def difference(expected, sample):
    """Largest difference of log-likelihoods; infinite where anything else is not the same."""
    worst = 0.0
    for key, value in expected.items():
        if key.startswith("loglikelihood"):
            ours, theirs = (v if isinstance(v, list) else [v] for v in (sample[key], value))
            worst = max(worst, *(abs(a - b) for a, b in zip(ours, theirs, strict=True)))
        elif sample[key] != value:
            return math.inf
    return worst


def main():
    halo, model, data = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 20
    with tempfile.TemporaryDirectory() as folder:
        samples, results = pathlib.Path(folder) / "samples.jsonl", pathlib.Path(folder) / "results.json"
        subprocess.run([halo, "eval", model, "--tasks", ",".join(TASKS), "--data", data, "--limit", str(count),
                        "--log-samples", samples, "--out", results], check=True)
        ours = {(s["task"], s["id"]): s for s in map(json.loads, samples.read_text().splitlines())}
        tables = json.loads(results.read_text())["models"][0]["tasks"]
    reference = Reference(model)
    wrong = 0
    for task in TASKS:
        items = read_items(data, task, count)
        worst, figures = 0.0, {}
        for item in items:
            expected, values = judge(reference, task, item)
            apart = difference(expected, ours[task, item["id"]])
            if apart > NATS:
                print(f"{task} {item['id']}: {ours[task, item['id']]}, expected {expected}")
            worst = max(worst, apart)
            for name, value in values.items():
                figures.setdefault(name, []).append(value)
        ok = worst <= NATS
        for name, values in figures.items():
            mean = sum(values) / len(values)
            error = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
            said = tables[task][name]
            ok &= said["n"] == len(values) and math.isclose(said["value"], mean, abs_tol=1e-9)
            ok &= math.isclose(said["stderr"], error, abs_tol=1e-9)
        wrong += not ok
        print(f"{task}: {len(items)} items, largest difference {worst:.2e} nats, "
              f"{'the same figures' if ok else 'DIFFERENT'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
