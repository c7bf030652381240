#!/usr/bin/env python3
"""llguidance as a second judge of what `halo serve` lets a model write where an answer must be JSON by a schema: at a temperature
at which every token that may come does come, it takes all of it, byte by byte.

    CLIENT=judge tests/clients/environment tests/clients/judge.py build/halo demo/teacher [SCHEMAS]
"""
import json
import pathlib
import random
import sys
import urllib.request

import llguidance
from schemas import random_schema

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "comparisons"))
import serving

TOKENIZER = llguidance.LLTokenizer("byte")


def why_refused(schema, text, whole):
    """What the judge has against a text, or the beginning of one; empty: nothing."""
    matcher = llguidance.LLMatcher(TOKENIZER, llguidance.LLMatcher.grammar_from_json_schema(schema))
    if matcher.get_error():
        return "the schema: " + matcher.get_error()
    tokens = TOKENIZER.tokenize_str(text)
    taken = matcher.validate_tokens(tokens)
    if taken < len(tokens):
        return f"it ends before {text[taken:]!r}"
    matcher.consume_tokens(tokens)
    return "" if matcher.is_accepting() or not whole else "it is not whole"


def answers(port, schema, seed):
    """[(text, whether it is whole)]"""
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    body = {"prompt": "The old man", "max_tokens": 200, "temperature": 50, "seed": seed, "n": 4, "response_format": form}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        choices = json.load(answer)["choices"]
    return [(choice["text"], choice["finish_reason"] == "stop") for choice in choices]


def main():
    halo, model, *count = sys.argv[1:]
    draw = random.Random(5)
    refused = ended = all_ = 0
    server, port = serving.start(halo, model, ["--memory", "0.2"])
    try:
        for seed in range(int(count[0]) if count else 40):
            schema = random_schema(draw, 3)
            for text, whole in answers(port, schema, seed):
                all_ += 1
                ended += whole
                assert not whole or why_refused(schema, text + "!", True), "the judge takes anything"
                if why := why_refused(schema, text, whole):
                    refused += 1
                    print(f"{json.dumps(schema)}\n  {text!r}\n  llguidance: {why}")
    finally:
        server.terminate()
        server.wait(60)
    print(f"judge: {all_} answers, {ended} of them whole; llguidance refuses {refused}")
    return 1 if refused or ended < all_ / 4 else 0


if __name__ == "__main__":
    sys.exit(main())
