"""Does `halo eval --tasks` score items as lm-evaluation-harness does? Runs the harness (lm_eval 0.4.13) with
transformers on a model directory and local task files in fp32, and compares item by item.

    pip install lm_eval==0.4.13 accelerate     # beside transformers and PyTorch
    python comparisons/harness.py run MODEL DATA harness.jsonl --limit 200
    halo eval MODEL --tasks hellaswag,arc_easy,... --data DATA --limit 200 --log-samples halo.jsonl
    python comparisons/harness.py compare harness.jsonl halo.jsonl

`run` hands the harness the items as tasks of its own kinds; prompts, splitting into tokens, scoring and metrics
are its own. Log-likelihoods are asked for with softmax_dtype=float64. `compare` exits 1 where they differ by more
than 1e-3 nats, or any choice or written answer differs. With `--halo PROGRAM` the harness drives halo in place of
transformers, as a process that is handed its requests as items of files; with `--serve PROGRAM` it asks `halo serve` over
HTTP by its own client (local-completions), which needs `pip install lm_eval[api]` and neither transformers nor PyTorch.
"""

import argparse
import contextlib
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import serving

CHOICE = ["hellaswag", "arc_easy", "arc_challenge", "piqa", "boolq", "sciq", "openbookqa", "social_iqa",
          "commonsense_qa", "copa"]
QUESTIONS = ["squad_v1", "drop", "xquad_en", "coqa", "nq_open", "triviaqa"]
DEFAULT = ["hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande", "lambada", "sciq", "boolq"]
NATS = 1e-3


def read_items(data, task, limit):
    plain, zst, gz = (data / f"{task}.jsonl{end}" for end in ("", ".zst", ".gz"))
    if plain.exists():
        text = plain.read_text()
    elif zst.exists():
        text = subprocess.run(["zstd", "-dc", zst], check=True, capture_output=True, text=True).stdout
    else:
        text = gzip.open(gz, "rt").read()
    lines = [line for line in text.split("\n") if line.strip()]
    return lines[:limit] if limit else lines


def blank(doc):
    return doc["context"].index("_")


def config_of(task, file, shots_file, shots):
    """The task as the harness is told of it."""
    files = {"test": str(file)}
    config = {"task": f"local_{task}", "dataset_path": "json", "dataset_kwargs": {"data_files": files},
              "test_split": "test"}
    if shots:
        files["shots"] = str(shots_file)
        config |= {"num_fewshot": shots, "fewshot_split": "shots", "fewshot_config": {"sampler": "first_n"}}
    if task in CHOICE:
        return config | {"output_type": "multiple_choice", "doc_to_text": "{{context}}",
                         "doc_to_choice": lambda doc: doc["choices"], "doc_to_target": "{{label}}",
                         "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
    if task == "winogrande":
        return config | {"output_type": "multiple_choice", "doc_to_text": lambda doc: doc["label"],
                         "doc_to_choice": lambda doc: [doc["context"][:blank(doc)] + c for c in doc["choices"]],
                         "doc_to_target": lambda doc: doc["context"][blank(doc) + 1:].strip(),
                         "metric_list": [{"metric": "acc"}]}
    if task == "lambada":
        return config | {"output_type": "loglikelihood",
                         "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
                         "doc_to_target": "{{' '+text.split(' ')[-1]}}",
                         "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}]}
    return config | {
        "output_type": "generate_until",
        "doc_to_text": lambda doc: (doc["context"] + "\n" if doc["context"] else "")
        + f"Question: {doc['question']}\nAnswer:",
        "doc_to_target": lambda doc: doc["answers"][0],
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 48, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}]}


def line_of(task, sample):
    line = {"task": task, "id": sample["doc"].get("id")}
    responses = [response[0] if isinstance(response, list) else response for response in sample["resps"]]
    if task in QUESTIONS:
        return line | {"answer": responses[0]}
    scores = [(float(score), str(greedy) == "True") for score, greedy in responses]
    if task == "lambada":
        return line | {"loglikelihood": scores[0][0], "greedy": scores[0][1], "acc": sample["acc"]}
    figures = {key: sample[key] for key in ("acc", "acc_norm") if key in sample}
    values = [score for score, _ in scores]
    return line | {"loglikelihoods": values, "choice": values.index(max(values))} | figures


def halo_model(program, directory):
    """A model of the harness whose answers come from `halo eval`."""
    from lm_eval.api.model import LM

    class HaloModel(LM):
        def ask(self, task, items):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                lines = [json.dumps({"id": i} | item) + "\n" for i, item in enumerate(items)]
                (folder / f"{task}.jsonl").write_text("".join(lines))
                subprocess.run([program, "eval", directory, "--tasks", task, "--data", folder, "--log-samples",
                                folder / "samples"], check=True, stdout=subprocess.DEVNULL)
                return [json.loads(line) for line in open(folder / "samples")]

        def loglikelihood(self, requests):
            # The last word behind a space is scored as LAMBADA's, all else as the only choice.
            pairs = [request.args for request in requests]
            if all(" " not in continuation[1:] for _, continuation in pairs):
                samples = self.ask("lambada", [{"text": context + more} for context, more in pairs])
                return [(sample["loglikelihood"], sample["greedy"]) for sample in samples]
            samples = self.ask("copa", [{"context": context, "choices": [more[1:]], "label": 0}
                                        for context, more in pairs])
            return [(sample["loglikelihoods"][0], False) for sample in samples]

        def generate_until(self, requests):
            return [sample["answer"] for sample in self.ask(
                "fda", [{"text": request.args[0], "value": "-"} for request in requests])]

        def loglikelihood_rolling(self, requests):
            raise NotImplementedError

    return HaloModel()


@contextlib.contextmanager
def served_model(program, directory, batch):
    """The harness's own client of a server, which asks it for tokens, too."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    server, port = serving.start(program, directory, ["--memory", "0.5"])
    try:
        url = f"http://127.0.0.1:{port}/v1/"
        with urllib.request.urlopen(url + "models") as answer:
            served = json.load(answer)["data"][0]
        yield LocalCompletionsAPI(base_url=url + "completions", model=served["id"], batch_size=batch,
                                  max_length=served["max_model_len"])
    finally:
        server.terminate()
        server.wait(60)


@contextlib.contextmanager
def asked_model(args):
    if args.serve:
        with served_model(args.serve, args.model, args.batch) as model:
            yield model
    elif args.halo:
        yield halo_model(args.halo, args.model)
    else:
        from lm_eval.models.huggingface import HFLM

        yield HFLM(pretrained=args.model, dtype="float32", device=args.device, batch_size=args.batch,
                   softmax_dtype="float64")


def run(args):
    import lm_eval

    with (open(args.out, "a" if args.append else "w") as out, tempfile.TemporaryDirectory() as folder,
          asked_model(args) as model):
        for task in args.tasks.split(","):
            # With shots: the first of TASK.shots.jsonl, or of the task's own file, which then are not asked.
            items = read_items(pathlib.Path(args.data), task, args.limit and args.limit + args.shots)
            if (pathlib.Path(args.data) / f"{task}.shots.jsonl").exists():
                shots = read_items(pathlib.Path(args.data), f"{task}.shots", args.shots)
                items = items[:args.limit] if args.limit else items
            else:
                shots, items = items[:args.shots], items[args.shots:]
            items = items[args.first:]
            file, shots_file = (pathlib.Path(folder) / f"{task}.{name}.jsonl" for name in ("test", "shots"))
            file.write_text("\n".join(items) + "\n")
            shots_file.write_text("\n".join(shots) + "\n")
            config = config_of(task, file, shots_file, args.shots)
            results = lm_eval.simple_evaluate(model=model, tasks=[config], log_samples=True, bootstrap_iters=1000)
            print(task, json.dumps(results["results"], default=str), flush=True)
            for sample in next(iter(results["samples"].values())):
                out.write(json.dumps(line_of(task, sample)) + "\n")
            out.flush()


def compare(args):
    ours = {}
    for line in open(args.halo):
        sample = json.loads(line)
        ours[sample["task"], str(sample["id"])] = sample
    report, wrong = {}, 0
    for line in open(args.harness):
        theirs = json.loads(line)
        row = report.setdefault(theirs["task"], {"items": 0, "largest difference, nats": 0.0, "choices": 0})
        mine = ours.get((theirs["task"], str(theirs["id"])))
        if mine is None:
            continue
        row["items"] += 1
        if "answer" in theirs:
            same = mine["answer"].strip() == theirs["answer"].strip()
        elif "loglikelihood" in theirs:
            row["largest difference, nats"] = max(row["largest difference, nats"],
                                                  abs(mine["loglikelihood"] - theirs["loglikelihood"]))
            same = mine["greedy"] == theirs["greedy"]
        else:
            for a, b in zip(mine["loglikelihoods"], theirs["loglikelihoods"], strict=True):
                row["largest difference, nats"] = max(row["largest difference, nats"], abs(a - b))
            same = mine["choice"] == theirs["choice"]
            same &= (mine["choice"] == mine["label"]) == (theirs["acc"] == 1)
            if "acc_norm" in theirs:
                same &= (mine["choice_norm"] == mine["label"]) == (theirs["acc_norm"] == 1)
        if not same:
            row["choices"] += 1
            print(f"differs: {json.dumps(theirs)}\n   halo: {json.dumps(mine)}")
        wrong += not same
    for task, row in report.items():
        wrong += row["largest difference, nats"] > NATS or row["items"] == 0
        print(f"{task:16} {row['items']:5} items, largest difference {row['largest difference, nats']:.2e} nats, "
              f"{row['choices']} choices or answers differ")
    return 1 if wrong or not report else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run")
    command.add_argument("model")
    command.add_argument("data")
    command.add_argument("out")
    command.add_argument("--tasks", default=",".join(DEFAULT))
    command.add_argument("--limit", type=int, default=0)
    command.add_argument("--first", type=int, default=0,
                         help="items of each task that are left out at its beginning: a run in pieces, with --append")
    command.add_argument("--shots", type=int, default=0)
    command.add_argument("--halo", help="program that answers in place of transformers")
    command.add_argument("--serve", help="program whose server answers")
    command.add_argument("--batch", type=int, default=8)
    command.add_argument("--device", default="cpu", help="of transformers: cpu, or cuda")
    command.add_argument("--append", action="store_true")
    command.set_defaults(function=run)
    command = commands.add_parser("compare")
    command.add_argument("harness")
    command.add_argument("halo")
    command.set_defaults(function=compare)
    args = parser.parse_args()
    return args.function(args) or 0


if __name__ == "__main__":
    sys.exit(main())
