#!/usr/bin/env python3
"""What a running `halo serve` reads again of what it has read: a chat that grows, is edited, and goes on in another process;
on a small HypeNet of random weights whose tokens are bytes, so that a text is one list of tokens. How much was reused is read
from the answers and from /metrics.

    tests/clients/reuse.py build/halo

HALO_SLOT_TOKENS=32768 saves and restores a prompt of so many tokens.
"""
import contextlib
import json
import os
import pathlib
import random
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "comparisons"))
import serve_load
import serving

TURNS = 50
FEWEST = 64  # tokens that are worth reusing, on a CPU
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LETTERS = [serve_load.byte_letters().index(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
LETTERS_ALONE = {str(token): -100 for token in range(256) if token not in LETTERS}


def write_model(folder):
    config = json.loads((ROOT / "configs/model/hypenet-2b.json").read_text())
    config |= {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8, "num_hidden_layers": 4,
               "mixer_types": ["lightning-attn", "attn", "lightning-attn", "lightning-attn"],
               "num_attention_heads": 4, "num_key_value_heads": 2, "lightning_nh": 4, "lightning_nkv": 4,
               "lightning_head_dim": 8, "bos_token_id": None, "eos_token_id": None}
    serve_load.write_model(folder, config)
    (pathlib.Path(folder) / "chat_template.jinja").write_text(TEMPLATE)


class Server:
    def __init__(self, halo, folder, *options):
        self.process, self.port = serving.start(
            halo, folder / "model", ["--memory", "0.2", "--slot-folder", folder / "slots", "--threads", "1", *options])
        self.prompts = self.cached = 0  # tokens of all answers' prompts

    def post(self, path, **body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def ask(self, path, **body):
        """(answer, tokens of the prompt, of them reused, tokens of the answer)"""
        plain = dict(max_tokens=24, temperature=0, ignore_eos=True, logit_bias=LETTERS_ALONE)
        answer = self.post(path, **plain | body)
        usage = answer["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        self.prompts += usage["prompt_tokens"]
        self.cached += cached
        return answer["choices"][0], usage["prompt_tokens"], cached, usage["completion_tokens"]

    def say(self, messages):
        choice, *tokens = self.ask("/v1/chat/completions", messages=messages)
        return choice["message"]["content"], *tokens

    def check_metrics(self):
        figures = serving.metrics(self.port)
        assert figures["halo_prompt_tokens_total"] == self.prompts, (figures, self.prompts)
        assert figures["halo_prompt_tokens_cached_total"] == self.cached, (figures, self.cached)
        assert figures['halo_requests_total{route="/v1/chat/completions",status="200"}'] > 0, figures


@contextlib.contextmanager
def running(*args):
    server = Server(*args)
    try:
        yield server
        server.check_metrics()
        server.process.terminate()
        assert server.process.wait(60) == 0, "the server did not end well"
    finally:
        server.process.kill()


def user(text):
    return {"role": "user", "content": text}


def check_growing_chat(server, drafts):
    """The conversation, as it is after many turns. Of an answer all but its last token was fed; with drafts, some less."""
    messages, ends = [], [0]
    for turn in range(TURNS):
        messages.append(user(f"And what do you say of the number {turn}?"))
        text, prompt, cached, tokens = server.say(messages)
        if ends[-1] >= 2 * FEWEST:
            assert ends[-1] - drafts <= cached <= ends[-1], (turn, prompt, cached, ends[-1])
        messages.append({"role": "assistant", "content": text})
        ends.append(prompt + tokens - 1)
    assert server.cached >= 0.95 * server.prompts, (server.cached, server.prompts)
    print(f"reuse: {TURNS} turns, {server.prompts} tokens of prompts, {server.cached / server.prompts:.1%} reused")
    # The last turn is edited, twice: what stood before it is not read again.
    for text in ("And what do you say of all of them?", "And what of none?"):
        edited = [*messages[:-2], user(text)]
        answer, prompt, cached, _ = server.say(edited)
        assert cached >= ends[-2] - drafts, (prompt, cached, ends[-2])
        assert prompt - cached <= len(f"\n<user>{text}\n<assistant>") + 1 + drafts, (prompt, cached)
    return edited, answer


def check_slots(server, after_restart, messages, answer, tokens):
    """What is saved is all there for another process."""
    letters = random.Random(1)
    text = "".join(letters.choice("abcdefgh ") for _ in range(tokens))
    long, prompt, _, _ = server.ask("/v1/completions", prompt=text)
    assert prompt == tokens
    assert server.post("/slots/save", name="long", prompt=text)["tokens"] == tokens
    saved = server.post("/slots/save", name="chat", messages=messages)["tokens"]
    server.check_metrics()
    server.process.kill()
    server.process.wait(60)
    with after_restart as other:
        assert other.post("/slots/restore", name="long")["tokens"] == tokens
        assert other.post("/slots/restore", name="chat")["tokens"] == saved
        choice, _, cached, _ = other.ask("/v1/completions", prompt=text)
        assert (choice, cached) == (long, tokens), (choice, long, cached)
        again, prompt, cached, _ = other.say(messages)
        assert (again, prompt, cached) == (answer, saved, saved), (again, answer, prompt, cached, saved)


def main():
    halo = sys.argv[1]
    tokens = int(os.environ.get("HALO_SLOT_TOKENS", 3000))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_model(folder / "model")
        (folder / "slots").mkdir()
        with running(halo, folder) as server:
            check_growing_chat(server, drafts=32)
        server = Server(halo, folder, "--draft-tokens", "0")
        try:
            messages, answer = check_growing_chat(server, drafts=0)
            check_slots(server, running(halo, folder, "--draft-tokens", "0"), messages, answer, tokens)
        finally:
            server.process.kill()
    print(f"reuse: {tokens} tokens of a slot are there after a restart")


if __name__ == "__main__":
    main()
