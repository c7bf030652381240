"""Compares `halo tokenize` with the Python package `tokenizers`: ids and decoded text, exactly.

The tokenizers are those of a golden folder (NAME.tokenizer.json[.zst]) and small ones trained here on
the same package, which together use every component that halo reads. The texts are random: words and
characters of many scripts, marks, spaces, numbers, emoji, code, added tokens, any code point at all.

  python3 comparisons/check_tokenizers.py --count 100000 --golden ../shared/golden/tokenizer
  python3 comparisons/check_tokenizers.py --every-character      # each code point in a few surroundings
(a Python with tokenizers 0.23.3 and zstandard; see comparisons/README.md)
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402  (reads the variable above)
import zstandard  # noqa: E402
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,  # noqa: E402
                        pre_tokenizers, processors, trainers)

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")

# First and last code points of what texts are drawn from.
ALPHABETS = [
    (0x20, 0x7E), (0x41, 0x7A), (0x30, 0x39), (0xA0, 0xFF), (0x100, 0x24F), (0x300, 0x36F),
    (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF),
    (0xB80, 0xBFF), (0xE00, 0xE7F), (0xF00, 0xFFF), (0x1000, 0x109F), (0x1100, 0x11FF),
    (0x1AB0, 0x1AFF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x209F), (0x2150, 0x218F),
    (0x2460, 0x24FF), (0x3000, 0x303F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xA700, 0xA7FF),
    (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF),
    (0x10780, 0x107BF), (0x10D00, 0x10D8F), (0x11900, 0x1195F), (0x1D165, 0x1D1AD),
    (0x1D400, 0x1D7FF), (0x1E000, 0x1E0FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0, 0x10FFFF)]
WORDS = ["the", " of", "It's", "WE'LL", "don’t", "naïve", " Straße", "İstanbul", "ΟΔΟΣ", "привет",
         " мир", "你好", "世界", "こんにちは", "カタカナ", "안녕하세요", "नमस्ते", "สวัสดี", "مرحبا", "שלום",
         "γειά", "tiếng Việt", "e\u0301", "\u1100\u1161\u11a8", "q\u0307\u0323", "👩‍👩‍👧", "🇩🇪", "12345",
         "3.14", "٣٤", "½", "Ⅷ", "ﬁ", "№", "\n", "\n\n", "\r\n", "\t", "  ", "    ", "\u3000", "\u00a0",
         "\u2028", "'s", "'S", "'ſ", "'re", "--", "...", "::", "()", "{\"a\": 1}", "x_y", "<s>", "</s>",
         "<|im_start|>", "<|endoftext|>", "<tool_call>", "[ADDED]", "word", "▁", "<0x0A>", "_", "\0"]


def random_text(draw):
    parts = []
    for _ in range(draw.randrange(1, 24)):
        kind = draw.random()
        if kind < 0.5:
            parts.append(draw.choice(WORDS))
        else:
            first, last = draw.choice(ALPHABETS)
            run = [draw.randint(first, last) for _ in range(draw.randrange(1, 6))]
            parts.append("".join(chr(c) for c in run if not 0xD800 <= c <= 0xDFFF))
        if draw.random() < 0.3:
            parts.append(" ")
    return "".join(parts)


def every_character():
    for code in range(0x110000):
        if not 0xD800 <= code <= 0xDFFF:
            c = chr(code)
            yield f"{c} a{c}b 1{c}2 {c}\u0345\u0323{c} word{c} {c}word\n{c}"


def assigned(text):
    """Without characters that this Python does not know: the system's Oniguruma, which halo uses for
    patterns without a scanner, is about as old."""
    return "".join(c for c in text if unicodedata.category(c) != "Cn")


def read(path):
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(data).read()
    return data.decode()


def train(tokenizer, texts, special=("<unk>", "<s>", "</s>"), alphabet=()):
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=700, special_tokens=list(special), initial_alphabet=list(alphabet),
        show_progress=False))
    return tokenizer


def byte_level(texts, pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, texts, alphabet=pre_tokenizers.ByteLevel.alphabet())


def byte_fallback(texts, fallback=True, **model):
    """A model of characters; with `fallback`, the 256 tokens of bytes are in it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    train(tokenizer, texts)
    bytes_ = [f"<0x{b:02X}>" for b in range(256)] if fallback else []
    state = json.loads(tokenizer.to_str())
    for token in bytes_:
        state["model"]["vocab"][token] = len(state["model"]["vocab"])
    state["model"].update(byte_fallback=fallback, **model)
    return Tokenizer.from_str(json.dumps(state))


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def made_here(texts):
    """(name, tokenizer) of every kind that halo reads."""
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    sequence = pre_tokenizers.Sequence
    yield "gpt2", byte_level(texts, gpt2)
    yield "gpt2-prefix-space", byte_level(texts, pre_tokenizers.ByteLevel(add_prefix_space=True))
    yield "digits", byte_level(texts, sequence([pre_tokenizers.Digits(True), gpt2]))
    yield "digit-runs", byte_level(texts, sequence([pre_tokenizers.Digits(False), gpt2]))
    llama3 = byte_level(texts, sequence([split(LLAMA3), plain]))
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A <s> $B",
                                      special_tokens=[("<s>", 1), ("</s>", 2)])])
    yield "llama3", llama3
    yield "llama3-removed", byte_level(texts, sequence([split(LLAMA3, "removed", True), plain]))
    for behavior in ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            steps = sequence([split(r"\p{Lu}\p{Ll}*|[\p{M}\s]+|x?", behavior, invert), plain])
            yield f"regex-{behavior}-{invert}", byte_level(texts, steps)
    yield "literal", byte_level(
        texts, sequence([pre_tokenizers.Split(" ", "merged_with_next"), plain]))
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield form, byte_level(texts, gpt2, getattr(normalizers, form)())
    yield "regex-normalizers", byte_level(texts, gpt2, normalizers.Sequence([
        normalizers.Strip(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\d+"), "#"),
        normalizers.Replace("the", "THE"), normalizers.NFC()]))

    old = byte_fallback(texts, fuse_unk=True)
    old.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                     decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    old.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    yield "llama2", old
    for scheme in ("always", "first", "never"):
        for parts in (False, True):
            new = byte_fallback(texts, fuse_unk=True)
            state = json.loads(new.to_str())
            state["normalizer"] = None
            new = Tokenizer.from_str(json.dumps(state))
            new.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=parts)
            new.decoder = decoders.Metaspace("▁", scheme) if parts else old.decoder
            yield f"metaspace-{scheme}-{parts}", new
    for fuse in (False, True):
        unknown = byte_fallback(texts, fallback=False, fuse_unk=fuse)
        unknown.decoder = old.decoder
        yield f"unknown-{fuse}", unknown

    added = byte_level(texts, sequence([split(LLAMA3), plain]), normalizers.NFC())
    added.add_tokens([
        AddedToken("word", single_word=True), AddedToken("[ADDED]", lstrip=True, rstrip=True),
        AddedToken("<tool_call>", rstrip=True, normalized=False),
        AddedToken("\u00e9"), AddedToken("e\u0301", normalized=False, single_word=True),
        AddedToken("x_", single_word=True)])
    added.add_special_tokens(["<|im_start|>", "<|im_start|>x", "<|endoftext|>"])
    yield "added", added


def run(halo, model, lines, *flags):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")
        file.flush()
        result = subprocess.run([*halo, "tokenize", model, "--jsonl", file.name, *flags],
                                capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"halo tokenize {' '.join(flags)}: {result.stderr}")
    return [json.loads(line) for line in result.stdout.split("\n") if line]


def compare(halo, name, tokenizer, texts):
    """The number of texts that differ in anything, and the first of them."""
    with tempfile.TemporaryDirectory() as model:
        tokenizer.save(f"{model}/tokenizer.json")
        lines = [{"text": text} for text in texts]
        wrong = set()
        for flags, special in (([], False), (["--add-special"], True)):
            theirs = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=special)]
            ours = [line["ids"] for line in run(halo, model, lines, *flags)]
            wrong |= {i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b}
        ids = [{"ids": i} for i in theirs]
        for flags, skip in (([], False), (["--skip-special"], True)):
            expected = tokenizer.decode_batch(theirs, skip_special_tokens=skip)
            got = [line["text"] for line in run(halo, model, ids, "--decode", *flags)]
            wrong |= {i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b}
    first = f"; the first: {texts[min(wrong)]!a}" if wrong else ""
    print(f"{name}: {len(texts)} texts, {len(wrong)} differ{first}", flush=True)
    return len(wrong)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--halo", default="build/halo", help="the program, with words before it")
    parser.add_argument("--golden", type=pathlib.Path, help="folder of NAME.tokenizer.json[.zst]")
    parser.add_argument("--count", type=int, default=2000, help="texts for each golden tokenizer")
    parser.add_argument("--small-count", type=int, default=2000, help="texts for each made here")
    parser.add_argument("--every-character", action="store_true")
    parser.add_argument("--only", default="", help="names that hold this")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    halo = args.halo.split()
    draw = random.Random(args.seed)
    training = [random_text(random.Random(i)) for i in range(2000)]
    checks = []
    if args.golden:
        for path in sorted(args.golden.glob("*.tokenizer.json*")):
            checks.append((path.name.split(".")[0], Tokenizer.from_str(read(path)), args.count))
    checks += [(name, tokenizer, args.small_count) for name, tokenizer in made_here(training)]
    print(f"tokenizers {tokenizers.__version__}, seed {args.seed}")
    total = different = 0
    for name, tokenizer, count in checks:
        if args.only in name:
            texts = list(every_character()) if args.every_character else [
                random_text(draw) for _ in range(count)]
            if name.startswith("regex"):
                texts = [assigned(text) for text in texts]
            total += len(texts)
            different += compare(halo, name, tokenizer, texts)
    print(f"{total} texts, {different} differ")
    return 1 if different or not total else 0


if __name__ == "__main__":
    sys.exit(main())
