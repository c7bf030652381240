"""Stage 3 where two GPUs share each row, beside one GPU that has it: one JSON.

  python3 comparisons/context_ranks.py --halo build/halo --out context-ranks.json

HypeNet-2B shapes with activation checkpointing: a row of 131,072 tokens on one rank and on two, the
same with lightning layers alone, and a row that one rank has no memory for. Then one update of the
demo's student in bf16, whose first moments are the gradients: how far those of two ranks are from
those of one. Compiles and downloads nothing. --seconds ends it in time: what there was no time for
is named under "left_out". NVLink multicast stays off. With --device cpu --compute float32, a small
--config and --length it runs anywhere, to try it out.
"""
import argparse
import array
import json
import math
import os
import pathlib
import struct
import subprocess
import tempfile
import time

from scaling import in_small, measure


def lightning_alone(config, folder):
    """The same configuration with a lightning mixer in every layer."""
    values = json.loads(pathlib.Path(config).read_text())
    values["mixer_types"] = ["lightning-attn"] * len(values["mixer_types"])
    path = folder / "lightning.json"
    path.write_text(json.dumps(values))
    return str(path)


def bench_words(args, config, ranks, length, steps):
    launch = [args.halo, "launch", "-n", str(ranks), "--"] if ranks > 1 else [args.halo]
    return launch + ["bench", "train", "--stage", "finetune", "--config", config, "--rows", "1",
                     "--sequence-length", str(length), "--steps", str(steps),
                     "--context-ranks", str(ranks), "--activation-checkpointing",
                     "--compute", args.compute, "--device", args.device, "--rank-seconds", "120"]


def values_of(path):
    """Every value of a safetensors file of fp32 tensors, by name."""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = array.array("f", data[8 + size + begin:8 + size + end])
    return tensors


def difference(one, other):
    """|other - one| / |one| of all values together, and the largest of any tensor."""
    total, norm, worst = 0.0, 0.0, (0.0, "")
    for name, values in one.items():
        apart = sum((a - b) ** 2 for a, b in zip(values, other[name]))
        own = sum(a * a for a in values)
        total, norm = total + apart, norm + own
        if own > 0:
            worst = max(worst, (math.sqrt(apart / own), name))
    return {"relative": math.sqrt(total / norm), "largest_of_a_tensor": worst[0],
            "tensor": worst[1]}


def gradients(args, folder, environment, left):
    """One update of the demo's student on one rank and on two that share its rows."""
    run = folder / "demo"
    words = [args.halo, "convert", "demo/demo-quick.toml", "--run", str(run), "--device",
             args.device, "--compute", "float32", "--set", "gates.distill_kl=9",
             "--set", "gates.scale_needle=0"]
    if args.length:
        words += in_small()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=left())
    if done.returncode:
        return {"error": done.stderr[-2000:]}
    student = str(max((run / "distill").glob("step-*"), key=lambda p: int(p.name[5:])))
    length = args.length or 16384
    result = {"tokens_of_a_row": length}
    for compute in ("float32", args.compute):
        moments = []
        for ranks in (1, 1, 2):
            out = folder / f"{compute}-{ranks}-{len(moments)}"
            launch = [args.halo, "launch", "-n", str(ranks), "--"] if ranks > 1 else [args.halo]
            words = launch + ["finetune", "--recipe", "demo/demo-quick.toml", "--student", student,
                              "--out", str(out), "--device", args.device, "--compute", compute,
                              "--set", "gates.finetune_loss_decrease=-9"]
            for setting in (f"sequence_length={length}", f"tokens_per_step={4 * length}",
                            f"tokens={4 * length}", "micro_batch_rows=1", "warmup_steps=0",
                            f"context_ranks={ranks}"):
                words += ["--set", f"finetune.{setting}"]
            done = subprocess.run(words, env=environment, capture_output=True, text=True,
                                  timeout=left())
            if done.returncode:
                return result | {"error": done.stderr[-2000:]}
            moments.append(values_of(out / "step-1/state/moment1.safetensors"))
        result[compute] = {"one_rank_twice": difference(moments[0], moments[1]),
                           "two_ranks": difference(moments[0], moments[2])}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--config", default="configs/model/hypenet-2b.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compute", default="bfloat16")
    parser.add_argument("--length", type=int, help="tokens of every row, for a small trial")
    parser.add_argument("--long", type=int, default=262144, help="tokens of the long row")
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    deadline = time.time() + args.seconds
    environment = dict(os.environ, NCCL_NVLS_ENABLE="0", TORCH_SYMM_MEM_DISABLE_MULTICAST="1")
    result = {"what": __doc__.split("\n")[0], "runs": [], "left_out": []}

    def left():
        return max(5, deadline - time.time())

    def save():
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        result["gradients"] = gradients(args, folder, environment, left)
        print(json.dumps(result["gradients"]), flush=True)
        save()
        length = args.length or 131072
        points = [("all layers", args.config, ranks, length, 3) for ranks in (1, 2)]
        points += [("lightning alone", lightning_alone(args.config, folder), ranks, length, 3)
                   for ranks in (1, 2)]
        points += [("long row", args.config, ranks, args.length or args.long, 1)
                   for ranks in (2, 1)]
        alone = {}
        for what, config, ranks, tokens, steps in points:
            if left() < 30:
                result["left_out"].append([what, ranks])
                continue
            run = {"what": what, "ranks": ranks} | measure(
                bench_words(args, config, ranks, tokens, steps), environment, left())
            if "error" not in run:
                if ranks == 1:
                    alone[what] = run["tokens_per_second"]
                elif what in alone:
                    run["times_one_rank"] = run["tokens_per_second"] / alone[what]
            result["runs"].append(run)
            save()
            print(what, ranks, run.get("error") or
                  f"{run['tokens_per_second']:.0f} tokens/s, {run['peak_memory_bytes'] / 2**30:.1f} "
                  f"GiB a rank, planned {run['planned_memory_bytes'] / 2**30:.1f}, "
                  f"{run.get('times_one_rank', 1):.2f} times one rank, loss {run['loss'][-1]:.6f}",
                  flush=True)


if __name__ == "__main__":
    main()
