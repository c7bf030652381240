"""Every rule of `halo select` against random sets and even spacing: what the student becomes.

For each seed, one alignment; then the layer sets that the rules choose, even spacing and random
sets, each distilled with the same tokens and evaluated: needles at the recipe's first eval length
beyond training, and KL. Only `halo` computes; this drives it and gathers its JSON.

  python3 comparisons/selection_study.py --recipe demo/demo.toml --work runs/study --out study.json
"""
import argparse
import concurrent.futures
import itertools
import json
import os
import random
import shutil
import subprocess

RULES = ["joint", "recall-ratio", "kl", "recall", "even"]
LOGIT_SCALE = "hype 1000"


class Study:
    def __init__(self, args):
        self.args = args
        self.environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads))

    def halo(self, command, seed, *words):
        line = [self.args.halo, command, *words, "--recipe", self.args.recipe]
        # A gate judges a product; here a bad set's figures are wanted too.
        settings = [f"run.seed={seed}", "gates.align_explained_variance=-1e9",
                    "gates.select_ratio=1e9", "gates.distill_kl=1e9", *self.args.set]
        for setting in settings:
            line += ["--set", setting]
        done = subprocess.run(line, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(line)}: {done.stderr.strip()}")
        return done.stdout

    def folder(self, seed, name):
        return f"{self.args.work}/seed-{seed}/{name}"

    def stage(self, command, seed, name, *words):
        """Runs a stage unless it is done; returns the folder it leaves."""
        out = self.folder(seed, name)
        if not os.path.exists(f"{out}/result.json"):
            self.halo(command, seed, *words, "--out", out)
        return out

    @staticmethod
    def model(folder):
        steps = [name for name in os.listdir(folder) if name.startswith("step-")]
        return f"{folder}/{max(steps, key=lambda name: int(name[5:]))}"

    def align(self, seed):
        transfer = self.stage("transfer", seed, "transfer")
        self.stage("align", seed, "align", "--student", self.model(transfer))
        self.stage("align-attention", seed, "align-attention")

    def select(self, seed, name, *words):
        return self.stage("select", seed, name,
                          "--student", self.model(self.folder(seed, "align")),
                          "--attention", self.model(self.folder(seed, "align-attention")), *words)

    def chosen(self, seed, rule):
        with open(self.select(seed, f"rule-{rule}", "--set", f"select.rule={rule}")
                  + "/selection.json") as file:
            return json.load(file)

    def figures(self, seed, layers):
        name = "-".join(map(str, layers))
        selected = self.select(seed, f"set-{name}", "--set", f"select.layers={list(layers)}")
        distilled = self.stage("distill", seed, f"distill-{name}", "--student",
                               self.model(selected))
        # The same logit scale for all, near what the search finds for this teacher.
        scaled = self.folder(seed, f"model-{name}")
        if not os.path.exists(f"{scaled}/eval.json"):
            shutil.rmtree(scaled, ignore_errors=True)
            shutil.copytree(self.model(distilled), scaled)
            with open(f"{scaled}/config.json") as file:
                config = json.load(file)
            config["attn_logits_scaling"] = LOGIT_SCALE
            with open(f"{scaled}/config.json", "w") as file:
                json.dump(config, file)
            self.halo("eval", seed, scaled, "--out", f"{scaled}/eval.json")
        with open(f"{scaled}/eval.json") as file:
            evaluation = json.load(file)
        with open(f"{selected}/selection.json") as file:
            before = json.load(file)["chosen"]
        student, teacher = evaluation["student"], evaluation["teacher"]
        beyond = next(length for length in student["needle"]
                      if int(length) > evaluation["training_length"])
        def found(needles):
            return {key: needles[beyond][key] for key in ("accuracy", "stderr", "n")}

        return {"seed": seed, "layers": list(layers), "needle_length": int(beyond),
                "needle": found(student["needle"]),
                "needle_unscaled": found(student["needle_unscaled"]),
                "kl": student["kl"], "kl_stderr": student.get("kl_stderr"),
                "loss_above_teacher": student["loss"] - teacher["loss"],
                "before_distillation": {"kl": before["kl"],
                                        "needle_accuracy": before["needle_accuracy"]}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--work", required=True, help="folder for models; what is there is kept")
    parser.add_argument("--out", required=True)
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--set", action="append", default=[], help="section.key=value, to halo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--random", type=int, default=8, help="random sets")
    parser.add_argument("--jobs", type=int, default=1, help="students at a time")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads a student")
    args = parser.parse_args()
    study = Study(args)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(study.align, args.seeds))
        runs = list(itertools.product(args.seeds, RULES))
        chosen = dict(zip(runs, pool.map(lambda run: study.chosen(*run), runs)))
        by_rule = [{"seed": seed, "rule": rule, "layers": chosen[seed, rule]["layers"],
                    "frequency": chosen[seed, rule]["frequency"]} for seed, rule in runs]
        kept = len(by_rule[0]["layers"])
        with open(f"{study.model(study.folder(args.seeds[0], 'align'))}/config.json") as file:
            num_layers = json.load(file)["num_hidden_layers"]
        # The same random sets for every seed.
        every = list(itertools.combinations(range(num_layers), kept))
        drawn = random.Random(0).sample(every, min(args.random, len(every)))
        jobs = [(seed, layers) for seed in args.seeds
                for layers in sorted({tuple(r["layers"]) for r in by_rule} | set(drawn))]
        students = list(pool.map(lambda job: study.figures(*job), jobs))

    result = {"recipe": args.recipe, "set": args.set, "logit_scale": LOGIT_SCALE,
              "rules": by_rule, "random_sets": sorted(map(list, drawn)), "students": students}
    with open(args.out, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    print(f"{'layers':<10} {'seed':>4} {'needle':>7} {'unscaled':>8} {'KL':>7} {'loss +':>7}  rules")
    for s in sorted(students, key=lambda s: (s["seed"], s["kl"])):
        rules = [r["rule"] for r in by_rule
                 if r["seed"] == s["seed"] and r["layers"] == s["layers"]]
        if s["layers"] in result["random_sets"]:
            rules.append("random")
        print(f"{' '.join(map(str, s['layers'])):<10} {s['seed']:>4} {s['needle']['accuracy']:>7.3f} "
              f"{s['needle_unscaled']['accuracy']:>8.3f} {s['kl']:>7.4f} "
              f"{s['loss_above_teacher']:>7.4f}  {', '.join(rules)}")


if __name__ == "__main__":
    main()
