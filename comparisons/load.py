#!/usr/bin/env python3
"""Loading a bf16 checkpoint beside `cat FILE > /dev/null`, by turns, from the page cache.

Makes a checkpoint of a Qwen3-like model of about --gigabytes (tensors by name, as the reference
writer orders them) in --folder, unless one is there, and writes figures to --out.
"""
import argparse, json, os, random, statistics, struct, subprocess, time

HIDDEN, MLP, HEADS, KV_HEADS, HEAD, VOCAB = 2048, 6144, 16, 8, 128, 65536


def tensors(layers):
    shapes = {"model.embed_tokens.weight": [VOCAB, HIDDEN], "model.norm.weight": [HIDDEN]}
    for i in range(layers):
        p = f"model.layers.{i}."
        a = p + "self_attn."
        for name, shape in [(p + "input_layernorm", [HIDDEN]), (p + "post_attention_layernorm", [HIDDEN]),
                            (p + "mlp.gate_proj", [MLP, HIDDEN]), (p + "mlp.up_proj", [MLP, HIDDEN]),
                            (p + "mlp.down_proj", [HIDDEN, MLP]), (a + "q_proj", [HEADS * HEAD, HIDDEN]),
                            (a + "k_proj", [KV_HEADS * HEAD, HIDDEN]),
                            (a + "v_proj", [KV_HEADS * HEAD, HIDDEN]),
                            (a + "o_proj", [HIDDEN, HEADS * HEAD]), (a + "q_norm", [HEAD]),
                            (a + "k_norm", [HEAD])]:
            shapes[name + ".weight"] = shape
    return dict(sorted(shapes.items()))


def size(shapes):
    """Bytes of bf16 tensors."""
    return sum(2 * s[0] * (s[1] if len(s) > 1 else 1) for s in shapes.values())


def header_of(shapes):
    """What stands before the values in a safetensors file of bf16 tensors, and their bytes."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = offset + size({name: shape})
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offset


def make(folder, gigabytes):
    os.makedirs(folder, exist_ok=True)
    a_layer = size(tensors(1)) - size(tensors(0))
    layers = round((gigabytes * 1e9 - size(tensors(0))) / a_layer)
    header, left = header_of(tensors(layers))
    # bf16 numbers between 2^-7 and 1 of either sign.
    source = random.Random(1)
    block = b"".join(struct.pack("<H", source.getrandbits(1) << 15 | source.randint(0x3C00, 0x3F7F))
                     for _ in range(1 << 19))
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(header)
        while left > 0:
            f.write(block[:left])
            left -= len(block)
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": VOCAB,
              "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": layers,
              "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD,
              "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--folder", default="/tmp/halo-bench-load")
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    args = parser.parse_args()
    weights = os.path.join(args.folder, "model.safetensors")
    if not os.path.exists(weights):
        make(args.folder, args.gigabytes)
    rounds = []
    for i in range(args.rounds + 1):
        start = time.monotonic()
        subprocess.run(f"cat '{weights}' > /dev/null", shell=True, check=True)
        cat = time.monotonic() - start
        loaded = json.loads(subprocess.run([args.halo, "bench", "load", args.folder], check=True,
                                           stdout=subprocess.PIPE).stdout)
        if i == 0:
            continue  # the first fills the page cache
        rounds.append({"cat_seconds": cat, "load_seconds": loaded["seconds"],
                       "speed_of_cat": cat / loaded["seconds"], "peak_share": loaded["peak_share"]})
        print(rounds[-1], flush=True)
    result = {"command": "comparisons/load.py", "device": loaded["device"], "bytes": loaded["bytes"],
              "speed_of_cat_median": statistics.median(r["speed_of_cat"] for r in rounds),
              "peak_share_max": max(r["peak_share"] for r in rounds), "rounds": rounds}
    print({k: v for k, v in result.items() if k != "rounds"})
    if args.out:
        with open(args.out, "w") as f:
            json.dump(result, f, indent=2)


if __name__ == "__main__":
    main()
