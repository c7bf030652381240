"""Compares the speed of encoding of `halo bench tokenize` and of the Python package `tokenizers`.

Both encode the same documents in memory, on one thread pinned to one CPU; loading the tokenizer and
reading the text are left out. `tokenizers` runs encode_batch_fast with TOKENIZERS_PARALLELISM=false.
Whole passes of the two programs take turns; the figure is the median of the ratios of their speeds.
The number of tokens must be the same.

  python3 comparisons/compare_tokenizers.py --golden ../shared/golden/tokenizer --corpus ../shared/data/corpus \
      --out comparisons/results/tokenizers.json
(a Python with tokenizers 0.23.3 and zstandard; see comparisons/README.md)
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time


def read(path):
    import zstandard
    return zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().decode()


def encode_here(model, inputs):
    """One pass of the package; run in a process of its own."""
    import tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
    texts = [json.loads(line)["text"] for path in inputs
             for line in read(pathlib.Path(path)).split("\n") if line]
    count = sum(len(text.encode()) for text in texts)
    tokens, seconds = 0, 0.0
    # In parts, as the whole would need all memory for its encodings.
    for first in range(0, len(texts), 64):
        begin = time.perf_counter()
        encodings = tokenizer.encode_batch_fast(texts[first:first + 64], add_special_tokens=False)
        seconds += time.perf_counter() - begin
        tokens += sum(len(encoding.ids) for encoding in encodings)
        del encodings
    print(json.dumps({"bytes": count, "tokens": tokens, "seconds": seconds,
                      "megabytes_per_second": count / 1e6 / seconds}))


def run(command, cpu):
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    result = subprocess.run(["taskset", "-c", str(cpu), *command], env=environment,
                            capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def device():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--golden", type=pathlib.Path, required=True)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="folder of .jsonl.zst")
    parser.add_argument("--names", nargs="*", default=["qwen3", "smollm2"])
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--out")
    args = parser.parse_args()
    import tokenizers
    inputs = [str(path) for path in sorted(args.corpus.glob("*.jsonl.zst"))]
    result = {"command": f"python3 {' '.join(sys.argv)}", "device": f"{device()}, one thread",
              "tokenizers": tokenizers.__version__, "inputs": [pathlib.Path(i).name for i in inputs]}
    for name in args.names:
        with tempfile.TemporaryDirectory() as model:
            text = read(args.golden / f"{name}.tokenizer.json.zst")
            pathlib.Path(model, "tokenizer.json").write_text(text, encoding="utf-8")
            pairs = []
            for _ in range(args.repeats):
                ours = run([args.halo, "bench", "tokenize", model, *inputs], args.cpu)
                theirs = run([sys.executable, __file__, "--pass", model, *inputs], args.cpu)
                pairs.append((ours, theirs))
        for ours, theirs in pairs:
            if (ours["bytes"], ours["tokens"]) != (theirs["bytes"], theirs["tokens"]):
                sys.exit(f"{name}: bytes or tokens differ: {ours} {theirs}")
        speeds = [[round(side["megabytes_per_second"], 3) for side in pair] for pair in pairs]
        result[name] = {"bytes": pairs[0][0]["bytes"], "tokens": pairs[0][0]["tokens"],
                        "halo_megabytes_per_second": [ours for ours, _ in speeds],
                        "tokenizers_megabytes_per_second": [theirs for _, theirs in speeds],
                        "ratio_median": round(statistics.median(a / b for a, b in speeds), 3)}
        print(name, json.dumps(result[name]), flush=True)
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pass"]:
        encode_here(sys.argv[2], sys.argv[3:])
    else:
        main()
