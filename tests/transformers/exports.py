"""Loads every export under ROOT with transformers and compares it with what `halo logits` wrote.

    TRANSFORMERS=4 tests/transformers/environment tests/transformers/exports.py ROOT HALO

Tolerances are shares of the RMS of the logits, fp32. Exit 1 where one is missed.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

AGREE = 1e-4  # with halo
SAME = 2e-5  # of two ways through the same code, whose sums differ in order
failures = []
worst = {}


def check(model, what, ok, detail=""):
    if not ok:
        failures.append(f"{model}: {what} {detail}")


def near(model, what, found, expected, bound):
    error = float((found - expected).abs().max() / expected.pow(2).mean().sqrt())
    worst[what] = max(worst.get(what, 0), error)
    check(model, what, error <= bound, f"{error:.2e}, at most {bound:.0e}")


def load(folder, **kwargs):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, **kwargs
    )
    problems = {key: value for key, value in info.items() if value}
    check(folder.parent.name, "loading", not problems, problems)
    return model.eval()


def load_fp32(folder):
    return load(folder, dtype=torch.float32)


def cache_of(output):
    return output.cache if "cache" in output else output.past_key_values


def check_cached(name, model, ids, full):
    """Pieces of many lengths through the cache, single tokens among them."""
    cache, parts, begin = None, [], 0
    for size in [5, 1, 1, 130, 2, 1, ids.shape[1]]:
        piece = ids[:, begin : begin + size]
        if piece.shape[1] == 0:
            break
        given = {} if cache is None else {cache_name: cache}
        output = model(piece, use_cache=True, **given)
        cache = cache_of(output)
        parts.append(output.logits)
        begin += size
    near(name, "cached", torch.cat(parts, 1), full, SAME)
    check(name, "length of the cache", cache.get_seq_length() == ids.shape[1])


def check_padded(name, model, ids):
    """Rows of different lengths in a batch are what they are alone, wherever the padding is."""
    length = min(ids.shape[1], 150)
    lengths = [length, length - 23]
    alone = [model(ids[row : row + 1, :n]).logits[0] for row, n in enumerate(lengths)]
    for side in ("left", "right"):
        batch = torch.randint(
            0, model.config.vocab_size, (2, length)
        )  # what padding holds is no matter
        mask = torch.zeros(2, length, dtype=torch.long)
        places = []
        for row, n in enumerate(lengths):
            place = slice(length - n, length) if side == "left" else slice(0, n)
            batch[row, place], mask[row, place] = ids[row, :n], 1
            places.append(place)
        logits = model(batch, attention_mask=mask).logits
        check(name, f"{side}-padded is finite", bool(torch.isfinite(logits).all()))
        for row, place in enumerate(places):
            near(name, f"{side}-padded", logits[row, place], alone[row], SAME)
        # In two pieces, the cut within the padding or behind it.
        first = model(batch[:, :9], attention_mask=mask[:, :9], use_cache=True)
        second = model(batch[:, 9:], attention_mask=mask, **{cache_name: cache_of(first)})
        logits = torch.cat([first.logits, second.logits], 1)
        for row, place in enumerate(places):
            near(name, f"{side}-padded, cached", logits[row, place], alone[row], SAME)


def check_generate(name, model, prompts, expected):
    count = expected.shape[1]
    model.generation_config.eos_token_id = None  # `halo logits` does not stop either
    settings = {"max_new_tokens": count, "pad_token_id": 0}
    plain = {"do_sample": False, **settings}
    found = model.generate(prompts, attention_mask=torch.ones_like(prompts), **plain)
    check(
        name, "greedy tokens", torch.equal(found[:, prompts.shape[1] :], expected), found.tolist()
    )
    # Left-padded in one batch as alone.
    short = prompts[1:, 6:]
    padded = torch.cat([prompts[:1], torch.cat([prompts[1:, :6] * 0, short], 1)])
    mask = torch.ones_like(padded)
    mask[1, :6] = 0
    both = model.generate(padded, attention_mask=mask, **plain)
    single = model.generate(short, attention_mask=torch.ones_like(short), **plain)
    check(name, "greedy tokens, padded", torch.equal(both[0], found[0]))
    check(name, "greedy tokens, padded", torch.equal(both[1, 6:], single[0]))
    for mode in (
        {"do_sample": True, "temperature": 0.8, "top_k": 20},
        {"do_sample": False, "num_beams": 3},
    ):
        tokens = []
        for use_cache in (True, False):
            torch.manual_seed(3)
            tokens.append(
                model.generate(padded, attention_mask=mask, use_cache=use_cache, **settings, **mode)
            )
        check(name, f"generate with and without cache, {mode}", torch.equal(*tokens), tokens)


def gradients(model, ids):
    model.zero_grad()
    loss = model(ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {
        key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None
    }


def check_training(name, model, ids, full):
    model.train()
    loss, grads = gradients(model, ids)
    expected = torch.nn.functional.cross_entropy(full[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    check(name, "loss", abs(float(loss - expected)) <= 1e-5 * float(expected), (loss, expected))
    without = [key for key, _ in model.named_parameters() if key not in grads]
    check(name, "a gradient for every weight", not without, without)
    check(name, "finite gradients", all(torch.isfinite(g).all() for g in grads.values()))
    model.gradient_checkpointing_enable()
    runs = []
    hook = model.model.layers[0].register_forward_pre_hook(lambda *_: runs.append(1))
    again, recomputed = gradients(model, ids)
    hook.remove()
    check(name, "layers run again with gradient checkpointing", len(runs) == 2, len(runs))
    check(name, "loss with gradient checkpointing", abs(float(loss - again)) <= 1e-6 * float(loss))
    for key, grad in grads.items():
        near(name, "gradient checkpointing", recomputed[key], grad, 1e-4)
    model.gradient_checkpointing_disable()
    model.eval()


def check_saved(name, model, halo, folder, expected):
    """What transformers writes is a model of halo's again."""
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        out = pathlib.Path(place) / "logits.safetensors"
        subprocess.run(
            [halo, "logits", place, "--ids", folder / "ids.safetensors", "--out", out], check=True
        )
        near(name, "saved by transformers, read by halo", load_file(out)["logits"], expected, AGREE)
        again = load_fp32(pathlib.Path(place))
        check(
            name,
            "saved and loaded",
            all(
                torch.equal(a, b)
                for a, b in zip(model.state_dict().values(), again.state_dict().values())
            ),
        )


def check_model(folder, halo, thoroughly):
    name, export = folder.name, folder / "export"
    model = load_fp32(export)
    ids = load_file(folder / "ids.safetensors")
    expected = load_file(folder / "expected.safetensors")
    tokens = ids["input_ids"]
    with torch.no_grad():
        full = model(tokens).logits
        near(name, "logits", full, expected["logits"], AGREE)
        near(name, "logits_to_keep", model(tokens, logits_to_keep=2).logits, full[:, -2:], SAME)
        check_cached(name, model, tokens, full)
        check_padded(name, model, tokens)
        check_generate(name, model, ids["prompt_ids"], expected["greedy_ids"])
    check_training(name, model, tokens, full)
    if thoroughly:
        check_saved(name, model, halo, folder, expected["logits"])
        with torch.no_grad():
            states = model(tokens, output_hidden_states=True).hidden_states
            check(name, "hidden states", len(states) == model.config.num_hidden_layers + 1)
            base = (
                AutoModel.from_pretrained(export, trust_remote_code=True).to(torch.float32).eval()
            )
            near(name, "AutoModel", base(tokens).last_hidden_state, states[-1], SAME)
            half = load(export).to(torch.bfloat16)
            check(name, "bf16", bool(torch.isfinite(half(tokens).logits).all()))


def check_tokenizer(folder, halo):
    texts = ["It was the best of times, 1859.", "  naïve \t déjà-vu\n\n", "<|endoftext|>x"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(lines)
        file.flush()
        out = subprocess.run(
            [halo, "tokenize", folder / "export", "--jsonl", file.name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    tokenizer = AutoTokenizer.from_pretrained(folder / "export")
    for text, line in zip(texts, out.splitlines()):
        check(
            folder.name,
            f"tokens of {text!r}",
            tokenizer(text, add_special_tokens=False).input_ids == json.loads(line)["ids"],
        )


def check_refusals(folder):
    config = json.loads((folder / "export/config.json").read_text())
    for key, value in [
        ("lightning_scale", "sqrt"),
        ("attn_logits_scaling", "hype500"),
        ("mixer_types", ["attn", "mamba"]),
        ("lightning_use_short_conv", True),
        ("lightning_learned_decay", True),
    ]:
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(folder / "export", place, dirs_exist_ok=True)
            (pathlib.Path(place) / "config.json").write_text(json.dumps({**config, key: value}))
            try:
                AutoConfig.from_pretrained(place, trust_remote_code=True)
                check(folder.name, f"refusal of {key}", False)
            except ValueError as error:
                check(folder.name, f"refusal of {key} by name", key in str(error), error)


def main():
    root, halo = pathlib.Path(sys.argv[1]), sys.argv[2]
    folders = sorted(path.parent for path in root.glob("*/export"))
    for i, folder in enumerate(folders):
        check_model(folder, halo, thoroughly=i % 6 == 0)
    check_tokenizer(root / "demo", halo)
    check_refusals(folders[0])
    print(
        f"transformers {transformers.__version__}, torch {torch.__version__}: {len(folders)} models"
    )
    for what, error in worst.items():
        print(f"  {what:<40} {error:.1e}")
    for failure in failures[:40]:
        print(f"FAILED {failure}")
    return 1 if failures or len(folders) < 21 else 0


warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
torch.manual_seed(1)
is_version_5 = int(transformers.__version__.split(".")[0]) >= 5
cache_name = "cache" if is_version_5 else "past_key_values"
sys.exit(main())
