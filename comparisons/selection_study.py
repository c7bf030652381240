"""Every rule of `halo select` against random sets and even spacing: what the student becomes.

For each seed, one alignment; then the layer sets that the rules choose, even spacing and random
sets, each distilled with the same tokens and evaluated: needles at the recipe's first eval length
beyond training, KL, and the tasks that --commonsense, --written and --ruler name, whose means are
compared with the teacher's. Only `halo` computes; this drives it and gathers its JSON, written
anew after each student: what is done is not done again, and --seconds begins nothing after them.

  python3 comparisons/selection_study.py --recipe demo/demo.toml --work runs/study --out study.json
  python3 comparisons/selection_study.py ... --rules joint even \
      "halo-tasks: select.rule=halo; select.recall=[squad_v1]; select.commonsense=[arc_easy]"
  python3 comparisons/selection_study.py --table study.json     # as Markdown
"""
import argparse
import concurrent.futures
import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time

# NAME, which is a word of select.rule, or NAME: KEY=VALUE; KEY=VALUE
RULES = ["joint", "recall-ratio", "kl", "recall", "probe", "gate", "even"]
LOGIT_SCALE = "hype 1000"
GROUPS = ["commonsense", "written", "ruler"]


def settings_of(rule):
    name, _, settings = rule.partition(":")
    return [part.strip() for part in settings.split(";")] if settings else [f"select.rule={name}"]


def mean_of(tasks):
    """Mean over tasks of {"value", "stderr", "n"}, and its standard error, the items being drawn."""
    return {"value": sum(task["value"] for task in tasks) / len(tasks),
            "stderr": math.sqrt(sum(task["stderr"] ** 2 for task in tasks)) / len(tasks),
            "tasks": len(tasks), "n": sum(task["n"] for task in tasks)}


class Study:
    def __init__(self, args):
        self.args = args
        self.environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
        self.end = time.monotonic() + args.seconds if args.seconds else math.inf

    def run(self, line):
        done = subprocess.run(line, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(line)}: {done.stderr.strip()}")

    def halo(self, command, seed, *words):
        line = [self.args.halo, command, *words, "--recipe", self.args.recipe]
        # A gate judges a product; here a bad set's figures are wanted too.
        settings = [f"run.seed={seed}", "gates.align_explained_variance=-1e9",
                    "gates.select_ratio=1e9", "gates.distill_kl=1e9", *self.args.set]
        for setting in settings:
            line += ["--set", setting]
        self.run(line)

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
        settings = [word for setting in settings_of(rule) for word in ("--set", setting)]
        folder = self.select(seed, f"rule-{rule.partition(':')[0]}", *settings)
        with open(f"{folder}/selection.json") as file:
            return json.load(file)

    def tasks(self, model, out):
        """Means of the groups of tasks, and every task's figure."""
        means = {}
        for group in GROUPS:
            tasks = getattr(self.args, group)
            file = f"{out}/{group}.json"
            if tasks and not os.path.exists(file):
                os.makedirs(out, exist_ok=True)
                limit = self.args.ruler_limit if group == "ruler" else self.args.limit
                settings = [word for setting in self.args.set if setting.startswith("run.")
                            for word in ("--set", setting)]
                self.run([self.args.halo, "eval", model, "--tasks", ",".join(tasks), "--data",
                          self.args.data, "--limit", str(limit), "--lengths",
                          str(self.args.length), "--out", file, *settings])
            if tasks:
                with open(file) as text:
                    found = json.load(text)["models"][0]["tasks"]
                keys = ("acc_norm", "acc", "contains", str(self.args.length))
                figures = {task: next(found[task][key] for key in keys if key in found[task])
                           for task in tasks}
                means[group] = mean_of(list(figures.values())) | {
                    "each": {task: figure["value"] for task, figure in figures.items()}}
        return means

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
                                        "needle_accuracy": before["needle_accuracy"]},
                "teacher_needle": found(teacher["needle"]),
                "tasks": self.tasks(scaled, f"{scaled}/tasks")}


def rules_of(result, student):
    rules = [rule["rule"] for rule in result["rules"]
             if rule["seed"] == student["seed"] and rule["layers"] == student["layers"]]
    return rules + ["random"] * (student["layers"] in result["random_sets"])


def table(result):
    """A row a student, the least KL first."""
    def share(figure):
        return f"{figure['value']:.3f} +- {figure['stderr']:.3f}"

    def needles(figure):
        return share({"value": figure["accuracy"], "stderr": figure["stderr"] or 0})

    students = sorted(result["students"], key=lambda s: (s["seed"], s["kl"]))
    groups = list(result["teacher_tasks"])
    lines = ["| " + " | ".join(["layers kept", "chosen by", "seed", "KL", "needles", *groups]) + " |",
             "|" + "---|" * (5 + len(groups))]
    if students:
        cells = ["teacher", "", "", "", needles(students[0]["teacher_needle"])]
        cells += [share(result["teacher_tasks"][group]) for group in groups]
        lines.append("| " + " | ".join(cells) + " |")
    for s in students:
        cells = [" ".join(map(str, s["layers"])), ", ".join(rules_of(result, s)), str(s["seed"]),
                 f"{s['kl']:.4f} +- {s['kl_stderr'] or 0:.4f}", needles(s["needle"])]
        cells += [share(s["tasks"][group]) for group in groups]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def study_of(args):
    study = Study(args)
    os.makedirs(args.work, exist_ok=True)
    result = {"recipe": args.recipe, "set": args.set, "logit_scale": LOGIT_SCALE, "rules": [],
              "random_sets": [], "teacher_tasks": {}, "students": [], "failed": []}

    def note(job, done):
        """The result of a job, or nothing where it failed or there was no time for it."""
        try:
            return done.result()
        except RuntimeError as error:
            result["failed"].append(f"{job}: {error}")
            print(result["failed"][-1], file=sys.stderr, flush=True)
        except TimeoutError:
            result["failed"].append(f"{job}: no time was left")
        return None

    def in_time(function, *job):
        if time.monotonic() > study.end:
            raise TimeoutError
        return function(*job)

    def write():
        result["students"].sort(key=lambda s: (s["seed"], s["layers"]))
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        teacher = pool.submit(study.tasks, args.teacher, f"{args.work}/teacher-tasks")
        list(pool.map(study.align, args.seeds))
        with open(f"{study.model(study.folder(args.seeds[0], 'align'))}/config.json") as file:
            num_layers = json.load(file)["num_hidden_layers"]
        chosen = {(seed, rule): pool.submit(in_time, study.chosen, seed, rule)
                  for seed in args.seeds for rule in args.rules}
        result["teacher_tasks"] = note("teacher", teacher) or {}
        students = {}
        for (seed, rule), done in chosen.items():  # a student begins as soon as its layers are known
            if not (choice := note((seed, rule), done)):
                continue
            result["rules"].append({"seed": seed, "rule": rule.partition(":")[0],
                                    "layers": choice["layers"], "scores": choice["scores"],
                                    "frequency": choice["frequency"]})
            job = (seed, tuple(choice["layers"]))
            if job not in students:
                students[job] = pool.submit(in_time, study.figures, *job)
            write()
        # The same random sets for every seed.
        if args.random:
            kept = len(result["rules"][0]["layers"])
            every = list(itertools.combinations(range(num_layers), kept))
            drawn = random.Random(0).sample(every, min(args.random, len(every)))
            result["random_sets"] = sorted(map(list, drawn))
        for job in itertools.product(args.seeds, map(tuple, result["random_sets"])):
            if job not in students:
                students[job] = pool.submit(in_time, study.figures, *job)
        jobs = {done: job for job, done in students.items()}
        for done in concurrent.futures.as_completed(jobs):
            if figures := note(jobs[done], done):
                result["students"].append(figures)
                write()
    write()
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", help="prints the table of this result and does nothing else")
    parser.add_argument("--recipe")
    parser.add_argument("--teacher", help="its directory, where tasks are asked")
    parser.add_argument("--work", help="folder for models; what is there is kept")
    parser.add_argument("--out")
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--set", action="append", default=[], help="section.key=value, to halo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--random", type=int, default=8, help="random sets")
    parser.add_argument("--jobs", type=int, default=1, help="students at a time")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads a student")
    parser.add_argument("--seconds", type=float, default=0, help="nothing begins after them; 0: no end")
    for group in GROUPS:
        parser.add_argument(f"--{group}", nargs="+", default=[], help=f"tasks of the mean '{group}'")
    parser.add_argument("--data", help="folder of the tasks' files")
    parser.add_argument("--limit", type=int, default=200, help="items of each task")
    parser.add_argument("--ruler-limit", type=int, default=50, help="items of each of RULER's tasks")
    parser.add_argument("--length", type=int, default=4096, help="tokens of RULER's tasks")
    args = parser.parse_args()
    if args.table:
        with open(args.table) as file:
            print(table(json.load(file)))
    else:
        print(table(study_of(args)))


if __name__ == "__main__":
    main()
