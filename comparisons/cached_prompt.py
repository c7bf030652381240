#!/usr/bin/env python3
"""The first token behind a prompt of which all, or all but its last token, was read before, beside a decoding step.

  python3 comparisons/cached_prompt.py --halo build/halo --model MODEL --vocabulary 49152
"""
import argparse, http.client, json, random, statistics, time

import serving


def ask(client, prompt):
    """Seconds to the first token and between the others, and tokens of the prompt that were not read."""
    body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "stream": True, "ignore_eos": True,
            "stream_options": {"include_usage": True}}
    begin, came, usage = time.perf_counter(), [], None
    client.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    for line in client.getresponse():
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            if event["choices"] and event["choices"][0].get("text"):
                came.append(time.perf_counter())
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return came[0] - begin, [b - a for a, b in zip(came, came[1:])], cached


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--halo", default="build/halo")
    parser.add_argument("--model", required=True)
    parser.add_argument("--vocabulary", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    server, port = serving.start(args.halo, args.model,
                                 ["--memory", "1", "--threads", "1", "--draft-tokens", "0"])
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    source = random.Random(3)
    prompt = [source.randrange(300, args.vocabulary) for _ in range(args.tokens)]
    read, steps, first = ask(client, prompt)[0], [], {"all": [], "all but one": []}
    for i in range(args.rounds):
        for which, more in (("all", []), ("all but one", [400 + i])):
            seconds, between, cached = ask(client, prompt + more)
            assert cached == args.tokens, cached
            first[which].append(1e3 * seconds)
            steps += between
    step = 1e3 * statistics.median(steps)
    print(json.dumps({"read_ms": 1e3 * read, "step_ms": step, "allowed_ms": 1.2 * step + 5,
                      "first_token_ms": {which: statistics.median(times) for which, times in first.items()}},
                     indent=1))
    server.terminate()
    server.wait(60)


if __name__ == "__main__":
    main()
