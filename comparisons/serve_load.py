#!/usr/bin/env python3
"""A server under load beside the engine alone: tokens a second, waiting times, and what a long
prompt does to those whose answers grow.

  python3 comparisons/serve_load.py --halo build/halo --config configs/model/hypenet-2b.json \
      --device cuda --compute bfloat16 --out serve-load.json

Makes a model of random weights in --folder (unless one is there; its tokenizer has a made-up
vocabulary), starts `halo serve` on it, and has --clients connections send prompts of --prompt
tokens, of which the first --shared are the same for all, and read --answer tokens each as a
stream, --rounds times. What that takes by `halo bench infer` stands beside it: the same prompts'
own tokens, read alone behind what is shared, --clients of them one after the other (a whole prompt
less its shared beginning), and the answers' tokens but for their first ones, which prompts give, decoded in batches
of --clients at the length that they have in the middle of the answers.
Then --clients / 2 go on decoding while a prompt of --long tokens arrives, until it is answered.
They are of all lengths between --prompt and half as much again, and start over there, so that what
a step takes without the prompt is the same all along.
Python alone; every eight clients are a process of their own.
"""
import argparse, json, multiprocessing, os, random, socket, statistics, struct, subprocess, sys, time

import serving
from load import header_of


# ---- A model of random weights.

def byte_letters():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def write_tokenizer(folder, size):
    letters = byte_letters()
    vocabulary = {c: i for i, c in enumerate(letters)}
    for i in range(len(letters), size):
        vocabulary[f"\u0120w{i}"] = i
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump({"version": "1.0", "added_tokens": [], "normalizer": None,
                   "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
                   "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}, f)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast"}, f)


def tensors(c):
    hidden, mlp, size = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    shapes = {"model.embed_tokens.weight": [c["vocab_size"], hidden], "model.norm.weight": [hidden]}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [c["vocab_size"], hidden]
    for i, kind in enumerate(c["mixer_types"]):
        p, attention = f"model.layers.{i}.", kind == "attn"
        a = p + "self_attn."
        heads = (c["num_attention_heads"] if attention else c["lightning_nh"]) * size
        keys = (c["num_key_value_heads"] if attention else c["lightning_nkv"]) * size
        shapes |= {p + "input_layernorm.weight": [hidden], p + "post_attention_layernorm.weight": [hidden],
                   p + "mlp.gate_proj.weight": [mlp, hidden], p + "mlp.up_proj.weight": [mlp, hidden],
                   p + "mlp.down_proj.weight": [hidden, mlp], a + "q_proj.weight": [heads, hidden],
                   a + "k_proj.weight": [keys, hidden], a + "v_proj.weight": [keys, hidden],
                   a + "o_proj.weight": [hidden, heads], a + "q_norm.weight": [size],
                   a + "k_norm.weight": [size]}
        if attention:
            shapes[a + "o_gate.weight"] = [heads, hidden]
        else:
            shapes |= {a + "z_proj.weight": [heads, hidden], a + "o_norm.weight": [heads]}
    return dict(sorted(shapes.items()))


def write_model(folder, config):
    os.makedirs(folder, exist_ok=True)
    shapes = tensors(config)
    # bf16 numbers between 2^-9 and 2^-5 of either sign; vectors are ones.
    source = random.Random(1)
    block = b"".join(struct.pack("<H", source.getrandbits(1) << 15 | source.randint(0x3B00, 0x3CFF))
                     for _ in range(999_983))
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(header_of(shapes)[0])
        for name, shape in shapes.items():
            if len(shape) == 1:
                f.write(struct.pack("<H", 0x3F80) * shape[0])
                continue
            left = 2 * shape[0] * shape[1]
            while left > 0:
                f.write(block[:left])
                left -= len(block)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    write_tokenizer(folder, config["vocab_size"])


# ---- Clients.

class Answer:
    """A streamed answer over a connection of its own: when each piece of it came."""

    def __init__(self, port, prompt, answer):
        body = json.dumps({"prompt": prompt, "max_tokens": answer, "temperature": 0, "stream": True,
                           "ignore_eos": True, "stream_options": {"include_usage": True}}).encode()
        self.sent = time.monotonic()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def read(self, stop=None):
        """To its end, or until `stop` is set."""
        came, rest, usage = [], b"", None
        while chunk := self.socket.recv(1 << 16):
            now = time.monotonic()
            if stop and stop.is_set():
                self.socket.close()
                return {"sent": self.sent, "came": came}
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"])
                usage = event.get("usage") or usage
                if event["choices"] and event["choices"][0].get("text"):
                    came.append(now)
        self.socket.close()
        if usage is None:
            raise RuntimeError(f"an answer without an end: {rest[:300]!r}")
        details = usage.get("prompt_tokens_details") or {}
        return {"sent": self.sent, "came": came, "tokens": usage["completion_tokens"],
                "cached": details.get("cached_tokens", 0)}


def prompt_of(args, client, round):
    shared = random.Random(0)
    own = random.Random(1 + client * 1000 + round)
    draw = lambda source, n: [source.randrange(300, args.vocabulary) for _ in range(n)]
    return draw(shared, args.shared) + draw(own, args.prompt - args.shared)


def clients_process(port, first, count, work, out, stop):
    """Clients first .. first+count-1, each a thread that asks for what `work(number)` yields, prompts
    and lengths of answers; puts a list of answers or an error."""
    import threading
    answers, errors = [], []

    def client(number):
        try:
            for prompt, answer in work(number):
                answers.append(Answer(port, prompt, answer).read(stop))
                if stop and stop.is_set():
                    return
        except Exception as e:
            errors.append(f"client {number}: {e}")
    threads = [threading.Thread(target=client, args=(number,)) for number in range(first, first + count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put((answers, errors))


def start_clients(port, clients, work, stop=None):
    out, processes = multiprocessing.Queue(), []
    for first in range(0, clients, 8):
        processes.append(multiprocessing.Process(
            target=clients_process, args=(port, first, min(8, clients - first), work, out, stop)))
        processes[-1].start()
    return out, processes


def wait_for(started):
    out, processes = started
    answers = []
    for _ in processes:
        some, errors = out.get()
        if errors:
            sys.exit("\n".join(errors))
        answers += some
    for process in processes:
        process.join()
    return answers


def rounds_of(args, rounds, answer):
    return lambda number: [(prompt_of(args, number, round), answer) for round in rounds]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values):
    if not values:
        return None  # the answers ended before
    return {"p50": percentile(values, 0.5), "p90": percentile(values, 0.9), "p99": percentile(values, 0.99),
            "max": max(values), "n": len(values)}


def gaps(answers, begin=0.0, end=1e30):
    return [b - a for answer in answers for a, b in zip(answer["came"], answer["came"][1:])
            if begin <= a and b <= end]


def summary(answers):
    begin = min(a["sent"] for a in answers)
    end = max(a["came"][-1] for a in answers)
    tokens = sum(a["tokens"] for a in answers)
    return {"seconds": end - begin, "answers": len(answers), "answer_tokens": tokens,
            "tokens_per_second": tokens / (end - begin),
            "cached_tokens_median": statistics.median(a["cached"] for a in answers),
            "first_token_seconds": spread([a["came"][0] - a["sent"] for a in answers]),
            "inter_token_seconds": spread(gaps(answers))}


def long_prompt(args, port):
    """What comes to others while it is read."""
    others, answer = args.clients // 2, args.prompt // 2

    def ends_kept(number):
        yield prompt_of(args, number, 500), 1

    def all_lengths(number):
        """The first is as if it had been asked for before, each at another time."""
        prompt, there = prompt_of(args, number, 500), answer * number // others
        yield prompt + prompt[-there:] if there else prompt, answer - there
        while True:
            yield prompt, answer
    wait_for(start_clients(port, others, ends_kept))
    stop = multiprocessing.Event()
    running = start_clients(port, others, all_lengths, stop)
    time.sleep(5)
    source = random.Random(7)
    begin = time.monotonic()
    long = Answer(port, [source.randrange(300, args.vocabulary) for _ in range(args.long)], 8).read()
    end = long["came"][0]
    time.sleep(2.7)
    stop.set()
    answers = wait_for(running)
    before, during = gaps(answers, begin - 2.5, begin), gaps(answers, begin, end)
    alone = percentile(before, 0.5)
    return {"tokens": args.long, "others": others, "first_token_seconds": end - begin,
            "inter_token_before": spread(before), "inter_token_meanwhile": spread(during),
            "inter_token_after": spread(gaps(answers, end + 0.2, end + 2.7)),
            "times_of_before": spread([gap / alone for gap in during if alone])}


# ---- The engine alone, by the same model.

def bench(args, contexts, batch, prefill):
    """A result a context."""
    command = [args.halo, "bench", "infer", "--config", args.config, "--contexts",
               ",".join(map(str, contexts)), "--batch", str(batch),
               *(["--prefill", "--prompts", str(args.clients)] if prefill else ["--no-prefill"]),
               *machine_of(args)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    results = json.loads(done.stdout)["results"]
    for result in results:
        result.pop("prefill_profile", None)
    return [{"command": " ".join(command), **result} for result in results]


def machine_of(args):
    return ["--device", args.device, "--compute", args.compute]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--config", default="configs/model/hypenet-2b.json")
    parser.add_argument("--folder", default="/tmp/halo-serve-load")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compute", default="float32")
    parser.add_argument("--serve", default="", help="more options of `halo serve`")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=8192)
    parser.add_argument("--shared", type=int, default=4096)
    parser.add_argument("--answer", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=524288, help="0: none")
    parser.add_argument("--out")
    args = parser.parse_args()
    with open(args.config) as f:
        config = json.load(f)
    args.vocabulary = config["vocab_size"]
    if not os.path.exists(os.path.join(args.folder, "config.json")):
        write_model(args.folder, config)
    [decode] = bench(args, [args.prompt + args.answer // 2], args.clients, False)
    shared, prompt = bench(args, [args.shared, args.prompt], 1, True)
    result = {"command": " ".join(sys.argv),
              "alone": {"decode": decode, "prompt": prompt, "shared": shared}}
    answers = args.clients * args.rounds
    own_seconds = (result["alone"]["prompt"]["prefill_seconds"] -
                   result["alone"]["shared"]["prefill_seconds"])
    alone = (answers * own_seconds +
             args.rounds * (args.answer - 1) * result["alone"]["decode"]["token_seconds"])
    result["alone"]["seconds"] = alone
    server, port = serving.start(args.halo, args.folder, ["--max-running", str(args.clients),
                                                          *machine_of(args), *args.serve.split()])
    try:
        # What all share is read once, and steps are recorded, before anything is timed.
        wait_for(start_clients(port, args.clients, rounds_of(args, [900], 16)))
        load = summary(wait_for(
            start_clients(port, args.clients, rounds_of(args, range(args.rounds), args.answer))))
        load["share_of_alone"] = alone / load["seconds"]
        result["load"] = load
        print(json.dumps(result, indent=1), file=sys.stderr, flush=True)

        if args.long:
            result["long_prompt"] = long_prompt(args, port)
    finally:
        server.terminate()
        server.wait(60)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        with open(args.out, "w") as f:
            f.write(text + "\n")


if __name__ == "__main__":
    main()
