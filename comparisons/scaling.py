"""Steps of each stage on 1, 2, 4 ... GPUs of one machine, and what the GPUs' links carry: one JSON.

  python3 comparisons/scaling.py --halo build/halo --ranks 1,2 --sizes 2b --out scaling.json

Compiles and downloads nothing. Every count of ranks trains the same tokens a step. --seconds ends
it in time: what there was no time for is named under "left_out". NVLink multicast stays off
(NCCL_NVLS_ENABLE=0). With --device cpu and a small --config it runs anywhere, to try it out.
--rows 131072,524288 adds stage 3 with rows of so many tokens, which all ranks share
(finetune.context_ranks). --kill adds a conversion of the demo in which a rank is killed and all
start again, beside one that nobody disturbs; both write checkpoints behind their steps. --saves DIR
adds a step of stage 2 with a checkpoint, with and without run.async_checkpoints: DIR is on the disk
in question and has room for one of 14 bytes a parameter. What share of a step GPUs idle and talk is
in each run's "shares".
"""
import argparse
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

# Tokens a row, rows a micro-batch, rows a step, timed steps. The published tokens a step but for
# stage 3's two million, which take a minute on one GPU: an eighth of them, so that what ranks say
# to each other weighs eight times as much as it does.
STAGES = {
    "align": (512, 32, 32, 12),
    "distill": (512, 12, 96, 5),
    "finetune": (16384, 1, 16, 3),
}
# What does not fit one GPU without it.
RECOMPUTED = {"5b": ["finetune"], "9b": ["distill", "finetune"]}


def micro_batch(stage, ranks):
    length, rows, step_rows, steps = STAGES[stage]
    share = step_rows // ranks
    rows = min(rows, share)
    while share % rows:
        rows -= 1
    return length, rows, share // rows, steps


def command_of(args, ranks, words):
    launch = [args.halo, "launch", "-n", str(ranks), "--"] if ranks > 1 else [args.halo]
    return launch + words + ["--device", args.device, "--rank-seconds", "60"]


def measure(command, environment, seconds):
    start = time.time()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True,
                              timeout=max(5, seconds))
    except subprocess.TimeoutExpired:
        return {"command": " ".join(command), "error": f"took more than {seconds:.0f} s"}
    entry = {"command": " ".join(command), "wall_seconds": round(time.time() - start, 1)}
    if done.returncode:
        return entry | {"error": done.stderr.strip()[-2000:], "code": done.returncode}
    figures = json.loads(done.stdout)
    profile = figures.pop("profile", None)
    return entry | figures | ({"shares": profile["shares"]} if profile else {})


def in_small():
    """Settings with which the quick demo is done in seconds, for a trial."""
    words = []
    for setting in ("align.tokens=20480", "align_attention.tokens=0", "distill.tokens=20480",
                    "distill.warmup_steps=2", "align.warmup_steps=2", "finetune.tokens=0",
                    "select.rule=even", "eval.lengths=[256]", "eval.haystacks=1",
                    "eval.questions=1", "scale.lengths=[2048]", "scale.haystacks=1",
                    "scale.questions=1", "scale.candidates=[1000]", "scale.refine=0",
                    "gates.align_explained_variance=-99", "gates.select_ratio=9",
                    "gates.distill_kl=99", "gates.scale_needle=0"):
        words += ["--set", setting]
    return words


def ranks_of(launcher):
    """Process ids of the launcher's children."""
    with open(f"/proc/{launcher}/task/{launcher}/children") as file:
        return [int(word) for word in file.read().split()]


def killed_and_started_again(args, ranks, environment, deadline):
    """A conversion of the demo whose last rank is killed halfway, and one without."""
    with tempfile.TemporaryDirectory() as name:
        hashes, seconds = [], []
        for kills in (False, True):
            run = pathlib.Path(name) / f"kills-{kills}"
            command = [args.halo, "launch", "-n", str(ranks), "--max-restarts", "1", "--", "convert",
                       "demo/demo-quick.toml", "--run", str(run), "--device", args.device,
                       "--rank-seconds", "60"]
            every = 2 if args.length else 10
            for setting in ("run.shard=optimizer", "run.async_checkpoints=true",
                            f"align.checkpoint_every={every}",
                            f"distill.checkpoint_every={2 * every}"):
                command += ["--set", setting]
            if args.length:
                command += in_small()
            start = time.time()
            with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True) as launcher:
                if kills:
                    time.sleep(seconds[0] / 2)
                    os.kill(ranks_of(launcher.pid)[-1], signal.SIGKILL)
                try:
                    _, said = launcher.communicate(timeout=max(5, deadline - time.time()))
                except subprocess.TimeoutExpired:
                    launcher.terminate()
                    return {"ranks": ranks, "error": "took too long"}
            if launcher.returncode:
                return {"ranks": ranks, "error": said.strip()[-2000:], "code": launcher.returncode}
            seconds.append(round(time.time() - start, 1))
            model = (run / "model/model.safetensors").read_bytes()
            hashes.append(hashlib.sha256(model).hexdigest())
    return {"ranks": ranks, "command": " ".join(command), "seconds": seconds[0],
            "seconds_with_a_kill": seconds[1], "same_bits": hashes[0] == hashes[1]}


def step_with_a_checkpoint(args, config, ranks, environment, seconds):
    """How long training stands still for a checkpoint, of what it may: a tenth of a step or 0.3 s."""
    length, rows, batches, _ = micro_batch("distill", ranks)
    words = ["bench", "train", "--config", config, "--stage", "distill", "--sequence-length",
             str(args.length or length), "--rows", str(rows), "--micro-batches", str(batches),
             "--steps", "2", "--compute", args.compute, "--shard",
             "optimizer" if ranks > 1 else "none", "--save-to", args.saves]
    run = measure(command_of(args, ranks, words), environment, seconds)
    if "error" in run:
        return run
    saves = run["saves"]
    step = saves["step_seconds"]
    return {"command": run["command"], "tokens_a_step": run["tokens_a_step"], **saves,
            "delay_seconds": {"waiting": saves["waiting_step_seconds"] - step,
                              "behind": saves["behind_step_seconds"] - step,
                              "may_be": max(0.1 * step, 0.3)}}


def compare(runs):
    """Each run beside the one-rank run of its stage: speed and memory, as shares of it."""
    alone = {(run["size"], run["stage"]): run for run in runs
             if run.get("ranks") == 1 and "error" not in run}
    for run in runs:
        one = alone.get((run.get("size"), run.get("stage")))
        if not one or "error" in run:
            continue
        run["times_one_rank"] = run["tokens_per_second"] / one["tokens_per_second"]
        run["scaling"] = run["times_one_rank"] / run["ranks"]
        run["memory_of_one_rank"] = run["peak_memory_bytes"] / one["peak_memory_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--sizes", default="2b", help="of configs/model/hypenet-*.json")
    parser.add_argument("--config", help="another configuration, in place of --sizes")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--shards", default="none,optimizer,full")
    parser.add_argument("--rows", default="", help="tokens of rows that all ranks share")
    parser.add_argument("--kill", action="store_true", help="a rank of a conversion, once")
    parser.add_argument("--saves", metavar="DIR", help="a step with a checkpoint in there")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compute", default="bfloat16")
    parser.add_argument("--length", type=int,
                        help="tokens a row of every stage, for a small trial, of --kill too")
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    deadline = time.time() + args.seconds
    environment = dict(os.environ, NCCL_NVLS_ENABLE="0", TORCH_SYMM_MEM_DISABLE_MULTICAST="1")
    counts = [int(n) for n in args.ranks.split(",")]
    configs = ({"own": args.config} if args.config else
               {size: f"configs/model/hypenet-{size}.json" for size in args.sizes.split(",")})
    result = {"what": __doc__.split("\n")[0], "links": [], "runs": [], "left_out": []}

    def save():
        compare(result["runs"])
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)

    def add(about, words, least):
        """Measures a run of `bench train`, where so many seconds are left."""
        command = command_of(args, about["ranks"], words)
        left = deadline - time.time()
        if left < least:
            result["left_out"].append(" ".join(command))
            return
        run = measure(command, environment, left)
        result["runs"].append(about | run)
        save()
        print(*about.values(), run.get("error") or f"{run['tokens_per_second']:.0f} tokens/s, "
              f"{run['peak_memory_bytes'] / 2**30:.1f} GiB a rank", flush=True)

    for ranks in counts:
        if ranks > 1:
            words = ["bench", "comm", "--megabytes", "2048" if args.device == "cuda" else "4"]
            command = command_of(args, ranks, words)
            result["links"].append(measure(command, environment, deadline - time.time()))
            save()
    for size, config in configs.items():
        for stage in args.stages.split(","):
            for ranks in counts:
                for shard in args.shards.split(",") if ranks > 1 else ["none"]:
                    length, rows, batches, steps = micro_batch(stage, ranks)
                    words = ["bench", "train", "--config", config, "--stage", stage,
                             "--sequence-length", str(args.length or length), "--rows", str(rows),
                             "--micro-batches", str(batches), "--steps", str(steps),
                             "--compute", args.compute, "--shard", shard]
                    if stage in RECOMPUTED.get(size, []):
                        words.append("--activation-checkpointing")
                    add({"size": size, "stage": stage, "ranks": ranks, "shard": shard}, words, 20)
    for size, config in configs.items():
        for tokens in filter(None, args.rows.split(",")):
            for ranks in counts:
                words = ["bench", "train", "--config", config, "--stage", "finetune",
                         "--sequence-length", tokens, "--rows", "1", "--steps", "2",
                         "--context-ranks", str(ranks), "--activation-checkpointing", "--compute",
                         args.compute, "--shard", "optimizer" if ranks > 1 else "none"]
                add({"size": size, "stage": f"finetune, rows of {tokens}", "ranks": ranks}, words, 40)
    for size, config in configs.items() if args.saves else ():
        for ranks in counts:
            if deadline - time.time() < 40:
                result["left_out"].append(f"a step with a checkpoint, {size}, {ranks} ranks")
                continue
            run = step_with_a_checkpoint(args, config, ranks, environment, deadline - time.time())
            result.setdefault("saves", []).append({"size": size, "ranks": ranks} | run)
            print(size, ranks, run.get("error") or run["delay_seconds"], flush=True)
            save()
    if args.kill:
        result["kill"] = killed_and_started_again(args, counts[-1], environment, deadline)
        print(result["kill"], flush=True)
    save()


if __name__ == "__main__":
    main()
