"""Compares a stage-2 step of `halo bench train` with comparisons/stage2_pytorch.py on this CPU.

Interleaved whole runs of both programs on the same weights and ids, 2 threads, passive waiting;
the figure is the median of the ratios of tokens a second. Losses of every step must agree to 1e-5.

  python3 comparisons/compare_stage2.py --teacher demo/teacher --student runs/demo/model --out result.json
(a Python with PyTorch; see comparisons/README.md)
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile


def write_ids(path, rows, length, vocabulary):
    draw = random.Random(1)
    ids = [draw.randrange(vocabulary) for _ in range(rows * length)]
    header = json.dumps({"input_ids": {"dtype": "I64", "shape": [rows, length],
                                       "data_offsets": [0, 8 * len(ids)]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + struct.pack(f"<{len(ids)}q", *ids))


def run(command, environment):
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", OMP_NUM_THREADS="2")
    with open(f"{args.teacher}/config.json") as file:
        vocabulary = json.load(file)["vocab_size"]
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        ids = f"{folder}/ids.safetensors"
        write_ids(ids, args.rows, args.length, vocabulary)
        models = ["--teacher", args.teacher, "--student", args.student, "--ids", ids]
        ours = [args.halo, "bench", "train", *models, "--rows", str(args.rows),
                "--sequence-length", str(args.length), "--steps", "3"]
        theirs = [sys.executable, f"{here}/stage2_pytorch.py", *models]
        pairs = [(run(ours, environment), run(theirs, environment)) for _ in range(args.repeats)]
    ratios = sorted(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs)
    difference = max(abs(x - y) / abs(y) for a, b in pairs for x, y in zip(a["loss"], b["loss"]))
    result = {
        "command": "python3 comparisons/compare_stage2.py --teacher {} --student {} --rows {} --length {}"
                   .format(args.teacher, args.student, args.rows, args.length),
        "device": pairs[0][0]["device"],
        "ratio_median": ratios[len(ratios) // 2], "ratios": ratios,
        "halo_tokens_per_second": sorted(a["tokens_per_second"] for a, _ in pairs),
        "pytorch_tokens_per_second": sorted(b["tokens_per_second"] for _, b in pairs),
        "halo_peak_memory_bytes": max(a["peak_memory_bytes"] for a, _ in pairs),
        "pytorch_peak_memory_bytes": min(b["peak_memory_bytes"] for _, b in pairs),
        "pytorch": pairs[0][1]["torch"], "pytorch_lightning": pairs[0][1]["lightning"],
        "largest_relative_loss_difference": difference,
        "halo_share_of_matrix_rate": sorted(a["share_of_matrix_rate"] for a, _ in pairs)[len(pairs) // 2],
        "matrix_gflops": sorted(a["matrix_gflops"] for a, _ in pairs)[len(pairs) // 2]}
    with open(args.out, "w") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    print(json.dumps(result, indent=2))
    if difference > 1e-5:
        sys.exit("the losses differ: the two programs do not compute the same step")


if __name__ == "__main__":
    main()
