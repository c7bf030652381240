#!/usr/bin/env python3
"""Makes tests/golden/fixtures/tokenizer: a tiny tokenizer of every kind that halo reads, and what
the Python package `tokenizers` (0.22.2 made those that are kept) makes of some texts with it.

    tests/golden/make_tokenizers.py OUT

The texts below are written for this; each tokenizer is trained on them, too.
"""

import collections
import json
import pathlib
import random
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY = 480

PROSE = [
    "The river was higher than anyone in the village could remember, and it was still rising.",
    "She didn't answer; he'd asked twice, they'll ask again, and I'm sure we've time. It's LATE, "
    "THEY'LL say: WE'RE gone, you'd think.",
    "Kraft 17 ist größer als 4,096 — Straße, Übermut, naïve façade, coöperate.",
    "Вчера вечером мы долго говорили о том, что будет завтра.",
    "Το ποτάμι ανέβηκε πάλι χθες το βράδυ.",
    "昨日の夜、川の水がまた増えました。今天早上下雨了,河水又涨了。",
    "강물이 어젯밤에 다시 불어났다.",
    "نزل المطر طوال الليل وارتفع النهر.",
    "רד הגשם כל הלילה והנהר עלה.",
    "रात भर बारिश हुई और नदी फिर चढ़ गई।",
    "ฝนตกทั้งคืน แม่น้ำก็สูงขึ้นอีก",
    "def rise(level, rain=0.25):\n    # metres\n    return [level + rain * i for i in range(10)]\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += x[i] * y[i];  // in order\n}\r\n",
    '{"name": "river", "levels": [1, 22, 333, 4444, 55555], "is_high": true, "note": null}\n',
    "| level | day |\n|---|---|\n| 3.14159 | 2024-02-29 |\n\n> *quoted*, **bold**, `code`\n",
    "https://example.org/a?b=c&d=%20e#f user.name+tag@example.org C:\\tmp\\x.txt /usr/bin/env",
]

SHORT = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\t", " \n", "\n ", " \n \n ", "a", " a", "a ",
    "a  b", "a   b", "a\n\nb", "a \n b", "a\r\nb", "\ta\tb", "  a  ", "0", "12", "123", "1234", "12345678",
    "1a2b3c", "a1", "1 2  3", "3.14", "1,000,000", "½ ² Ⅳ ٣ ४", "'s", "it's", "IT'S", "'S 'Re 'VE 'll", "don''t",
    "’s it’s", "!", "!!", "?!...", "a!b", " !", "! ", "hello,world", "(a)[b]{c}<d>", "--- ___ ***", "a-b_c",
    "\u00e9", "e\u0301", "A\u030a \u212b \u00c5", "\u1e69 s\u0323\u0307 s\u0307\u0323", "\uac00 \u1100\u1161",
    "\ufb01 \u2126 \u2460", "\u00a0a\u00a0", "\u2003b", "\u3000c", "\u200bd", "a\u200db", "\ufeffx", "\u0085y",
    "\u2028z", "\x0b\x0c", "\x00", "\x01\x7f", "\u00ad", "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "x\U0001f30ay", "\U00020000\U0002f800", "\U0010ffff", "\ufffd", "\ue000",
    "İstanbul ıI", "ǅ ǆ", "ﷺ", "\u0e01\u0e33", "\u0928\u093f", "a\u0300\u0301\u0302", "漢字かな交じり文", "ａｂｃ１２３",
    "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>",
    "<|endoftext", "<think>a</think>", "x<tool_call>y", "<|begin_of_text|>a<|end_of_text|>", "<s>a</s>", "<unk>", "<0x41>",
    "▁a ▁", "Ġa", "aaaaaaaaaaaaaaaaaaaaaaaa", "abababababababab", "                                ", "\n\n\n\n\n\n\n\n",
    "the the the The THE", "théâtre THÉÂTRE", "ﬃ ß ẞ", "10:30 pm", "$5.00 €6,50 £7 ¥8 100%", "a=b+c*d/e^f", "#tag @me",
]

ALPHABETS = [
    "abcdefghij ", "ABCdef123 ,.!'", " \t\n\r\u00a0\u3000", "0123456789 .,", "'sdtremlvSLT ", "éèüñçßøå ",
    "e\u0301\u0323a\u030ao\u0308 \uac00\u1100\u1161\u11a8", "привет мир", "日本語中文かな한글", "\U0001f600\U0001f525\u200d\ufe0f a",
    "<|>imend_oftxs/", "\x00\x01\x04\x1d\x7f\u0085\u200b\ufeff",
]


def texts():
    draw = random.Random(1)  # random() alone: its stream is the same in every version of Python

    def below(n):
        return int(draw.random() * n)

    made = []
    for alphabet in ALPHABETS:
        for length in (3, 8, 8, 20, 40):
            made.append("".join(alphabet[below(len(alphabet))] for _ in range(length)))
    words = " ".join(PROSE).split(" ")
    for _ in range(12):
        at = below(len(words) - 12)
        made.append(" ".join(words[at:at + 1 + below(12)]))
    return SHORT + PROSE + made


SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"


def split_then_bytes(digits):
    pattern = "|".join([CONTRACTIONS, WORDS, digits, SIGNS, SPACES])
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(pre_tokenizer, special, normalizer=None, alphabet=None):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, show_progress=False,
        initial_alphabet=alphabet or pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(PROSE, trainer)
    return tokenizer


def qwen2():
    """NFC, single digits, added tokens that are not special."""
    tokenizer = byte_level(split_then_bytes(r"\p{N}"),
                           ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizers.NFC())
    tokenizer.add_tokens(["<tool_call>", "<think>", "</think>"])
    return tokenizer


def llama3():
    """Up to three digits; a piece that is a token is that token, whatever its merges are."""
    tokenizer = byte_level(split_then_bytes(r"\p{N}{1,3}"),
                           ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    file = json.loads(tokenizer.to_str())
    file["model"]["ignore_merges"] = True
    # Tokens that no merge makes, so that the setting shows.
    for word in ("Ġvillage", "Ġremember", "hello", "123", "Ġ***"):
        file["model"]["vocab"].setdefault(word, len(file["model"]["vocab"]))
    return Tokenizer.from_str(json.dumps(file))


def smollm():
    """GPT-2's pattern after single digits; bytes without a token vanish."""
    alphabet = [c for c in pre_tokenizers.ByteLevel.alphabet() if ord(c) % 23 != 5]
    return byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]),
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], alphabet=alphabet)


def byte_fallback():
    """Llama 2's kind: spaces are marks, what has no token is spelt in bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                                 normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                           decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    spelt = [f"<0x{byte:02X}>" for byte in range(256)]
    # Without a pre-tokenizer a whole text would be one word to the trainer.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    # The trainer's own choice among equally frequent characters differs from run to run.
    counts = collections.Counter("".join(PROSE).replace(" ", "▁"))
    alphabet = sorted(counts, key=lambda c: (-counts[c], c))[:60]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False,
                                  initial_alphabet=alphabet, limit_alphabet=len(alphabet),
                                  special_tokens=["<unk>", "<s>", "</s>", *spelt])
    tokenizer.train_from_iterator(PROSE, trainer)
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = file["added_tokens"][:3]
    file["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(file))


def cases(tokenizer):
    for text in texts():
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"text": text, "ids": ids,
                "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
        plain = tokenizer.decode(ids, skip_special_tokens=True)
        if plain != case["decoded"]:
            case["decoded_skip_special"] = plain
        yield json.dumps(case, ensure_ascii=False, separators=(",", ":"))


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    made = {"tiny-qwen2": qwen2, "tiny-llama3": llama3, "tiny-smollm": smollm,
            "tiny-byte-fallback": byte_fallback}
    for name, make in made.items():
        tokenizer = make()
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        (out / f"{name}.tokenizer.json").write_text(text + "\n", newline="")
        lines = "".join(line + "\n" for line in cases(tokenizer))
        (out / f"{name}.cases.jsonl").write_text(lines, newline="")
        print(name, tokenizer.get_vocab_size(), lines.count("\n"))


if __name__ == "__main__":
    main()
