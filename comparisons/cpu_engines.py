#!/usr/bin/env python3
"""halo beside llama.cpp and transformers on a CPU: reading a prompt, and writing behind it. By turns, ratios of one run.

    llama-quantize --allow-requantize MODEL.gguf bf16.gguf BF16     # tools of llama.cpp, as llama-cpp-python's source
    llama-quantize --allow-requantize MODEL.gguf q8.gguf Q8_0       # package has them, built for this machine
    halo import MODEL.gguf --dtype bfloat16 --out bf16
    halo quantize bf16 --out int8
    python comparisons/cpu_engines.py bf16 int8 --llama-bench PROGRAM --gguf bf16.gguf q8.gguf --python PYTHON

Every round runs each engine once, as a program of its own: `halo bench infer`, `llama-bench` and, by a Python that has
transformers and PyTorch, this file. All of them read the same number of random tokens and write as many behind them, with the
same number of threads; weights are bf16, or int8 (halo: a scale a row; llama.cpp: Q8_0; transformers: bf16, and fp32, which
may be the faster one where a processor is slow at bf16). A ratio is that of two engines in one
round; what is given is the median of the rounds, with all of them. Without --llama-bench or --python those are left out.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def transformers_seconds(model, kind, context, steps, threads):
    """A prompt's seconds and a token's, by transformers in `kind`, bfloat16 or float32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    decoder = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, kind)).eval()
    ids = torch.randint(decoder.config.vocab_size, (1, context))
    with torch.inference_mode():
        decoder(ids[:, :16], use_cache=True)
        begin = time.perf_counter()
        out = decoder(ids, use_cache=True, logits_to_keep=1)
        prompt = time.perf_counter() - begin
        tokens = []
        for _ in range(steps):
            begin = time.perf_counter()
            out = decoder(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
            tokens.append(time.perf_counter() - begin)
    return {"prompt_seconds": prompt, "token_seconds": statistics.median(tokens)}


def run(words, threads):
    done = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def halo(args, model):
    out = run([args.halo, "bench", "infer", model, "--contexts", str(args.context), "--steps", str(args.steps),
               "--threads", str(args.threads)], args.threads)
    result = out["results"][0]
    return {"prompt_seconds": result["prefill_seconds"], "token_seconds": result["token_seconds"],
            "read_bytes_per_second": out["read_bytes_per_second"], "share_of_floor": result["share_of_floor"]}


def llama(args, gguf):
    common = [args.llama_bench, "-m", gguf, "-t", str(args.threads), "-r", "1", "-o", "json"]
    (prompt,) = run(common + ["-p", str(args.context), "-n", "0"], args.threads)
    (token,) = run(common + ["-p", "0", "-n", str(args.steps), "-d", str(args.context)], args.threads)
    return {"prompt_seconds": args.context / prompt["avg_ts"], "token_seconds": 1 / token["avg_ts"]}


def engines_of(args):
    bf16, int8 = args.models
    engines = {"halo bf16": lambda: halo(args, bf16), "halo int8": lambda: halo(args, int8)}
    if args.llama_bench:
        engines["llama.cpp bf16"] = lambda: llama(args, args.gguf[0])
        engines["llama.cpp Q8_0"] = lambda: llama(args, args.gguf[1])
    if args.python:
        words = [args.python, os.path.abspath(__file__), bf16, int8, "--context", str(args.context), "--steps",
                 str(args.transformers_steps), "--threads", str(args.threads), "--only-transformers"]
        engines["transformers bf16"] = lambda: run(words + ["bfloat16"], args.threads)
        engines["transformers fp32"] = lambda: run(words + ["float32"], args.threads)
    return engines


PAIRS = [("halo int8", "halo bf16"), ("halo bf16", "llama.cpp bf16"), ("halo int8", "llama.cpp Q8_0"),
         ("halo bf16", "transformers bf16"), ("halo bf16", "transformers fp32")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs=2, help="directories: in bf16, and in int8")
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--llama-bench")
    parser.add_argument("--gguf", nargs=2, help="the same in BF16, and in Q8_0")
    parser.add_argument("--python", help="one that has transformers and PyTorch")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transformers-steps", type=int, default=16)
    parser.add_argument("--out")
    parser.add_argument("--only-transformers", metavar="TYPE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_transformers:
        print(json.dumps(transformers_seconds(args.models[0], args.only_transformers, args.context, args.steps,
                                              args.threads)))
        return
    engines = engines_of(args)
    rounds = []
    for _ in range(args.rounds):
        rounds.append({name: measure() for name, measure in engines.items()})
        print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    ratios = {}
    for ours, other in PAIRS:
        if ours not in engines or other not in engines:
            continue
        for what in ("prompt_seconds", "token_seconds"):
            all_of_them = [one[other][what] / one[ours][what] for one in rounds]
            ratios[f"{ours} over {other}, {what}"] = {"median": round(statistics.median(all_of_them), 3),
                                                      "rounds": [round(x, 3) for x in all_of_them]}
    text = json.dumps({"context": args.context, "steps": args.steps, "threads": args.threads, "times_as_fast": ratios,
                       "rounds": rounds}, indent=1)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(text + "\n")
    print(text)


main()
