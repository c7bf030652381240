"""Makes a tiny teacher of every family with random weights in transformers, compares its logits with what
`halo logits` finds in the folder that transformers wrote, and converts it: every stage on next to no tokens of
demo/data, with the demo's tokenizer.

    TRANSFORMERS=4 tests/transformers/environment tests/transformers/teachers.py HALO

The tolerance is a share of the RMS of the logits, fp32. Exit 1 where it is missed.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

AGREE = 1e-4
TOKENS = 400  # twice what the scaled ropes say they were trained on, and more

DEMO = pathlib.Path(__file__).resolve().parents[2] / "demo"

SIZES = dict(vocab_size=2048, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
             tie_word_embeddings=False)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
YARN = dict(factor=4.0, original_max_position_embeddings=128)

# name: (family, what differs from SIZES, rope type, its parameters)
TEACHERS = {
    "qwen3": ("Qwen3", dict(head_dim=24), None, {}),
    "qwen3, tied": ("Qwen3", dict(head_dim=16, tie_word_embeddings=True), None, {}),
    "qwen3, biases": ("Qwen3", dict(head_dim=16, attention_bias=True), None, {}),
    "qwen3, yarn": ("Qwen3", dict(head_dim=32), "yarn", YARN),
    "qwen2": ("Qwen2", dict(), None, {}),
    "qwen2, tied": ("Qwen2", dict(tie_word_embeddings=True), None, {}),
    "qwen2, yarn": ("Qwen2", dict(), "yarn", YARN),
    "llama": ("Llama", dict(), None, {}),
    "llama, head size": ("Llama", dict(head_dim=20), None, {}),
    "llama, biases": ("Llama", dict(attention_bias=True), None, {}),
    "llama, linear": ("Llama", dict(), "linear", dict(factor=4.0)),
    "llama, llama3": ("Llama", dict(), "llama3", LLAMA3),
    "llama, yarn": ("Llama", dict(), "yarn", YARN),
    "llama, yarn with its betas": ("Llama", dict(), "yarn",
                                   dict(YARN, beta_fast=16.0, beta_slow=2.0)),
    "llama, yarn with its factor": ("Llama", dict(), "yarn", dict(YARN, attention_factor=1.3)),
    "mistral": ("Mistral", dict(sliding_window=None), None, {}),
    "mistral, head size": ("Mistral", dict(sliding_window=None, head_dim=32), None, {}),
}


def config_of(family, sizes, rope, parameters):
    theta = 5000.0
    if rope is None:
        scaling = {}
    elif transformers.__version__.startswith("4."):
        scaling = {"rope_scaling": {"rope_type": rope, **parameters}}
    else:
        scaling = {"rope_parameters": {"rope_type": rope, "rope_theta": theta, **parameters}}
    # Version 5 takes rope_theta here too, and writes it into rope_parameters.
    return getattr(transformers, family + "Config")(
        **{**SIZES, "rope_theta": theta, **scaling, **sizes})


def error_of(teacher, halo, place):
    """Largest difference of the logits, as a share of their RMS."""
    torch.manual_seed(3)
    config = config_of(*teacher)
    model = getattr(transformers, teacher[0] + "ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5)
            else:  # a norm's, or a bias
                weight.normal_(float(name.endswith("norm.weight")), 0.3)
        ids = torch.randint(0, config.vocab_size, (2, TOKENS))
        expected = model(ids).logits
    model.save_pretrained(place, max_shard_size="500KB")
    save_file({"input_ids": ids}, place / "ids.safetensors")
    out = place / "logits.safetensors"
    subprocess.run([halo, "logits", place, "--ids", place / "ids.safetensors", "--out", out],
                   check=True)
    found = load_file(out)["logits"]
    return float((found - expected).abs().max() / expected.pow(2).mean().sqrt())


STAGE = """
tokens = 1024
sequence_length = 128
tokens_per_step = 512
micro_batch_rows = 4
learning_rate = 1e-3
min_learning_rate = 1e-5
warmup_steps = 1
"""
RECIPE = """
teacher = "{teacher}"
[run]
threads = 1
[data]
shards = ["{demo}/data/train.halotok"]
needle_share = 0.25
long_context = "concat"
[transfer]
qk_norm_tokens = 2048
[align]{stage}[align_attention]{stage}[distill]{stage}[finetune]{stage}
[select]
rule = "kl"
needle_haystacks = 1
needle_questions = 1
held_out_rows = 2
bootstrap = 10
[scale]
candidates = [500]
lengths = [1024]
haystacks = 1
questions = 1
documents = 1
[eval]
held_out = "{demo}/data/held-out.halotok"
lengths = [128]
held_out_tokens = 1024
haystacks = 1
questions = 1
position_documents = 1
[gates]
align_explained_variance = -1e9
select_ratio = 1e9
distill_kl = 1e9
finetune_loss_decrease = -1e9
on_policy_kl_decrease = -1e9
scale_needle = 0
"""


def conversion(halo, place):
    """The last line of what went wrong, or nothing."""
    shutil.copyfile(DEMO / "teacher" / "tokenizer.json", place / "tokenizer.json")
    (place / "recipe.toml").write_text(RECIPE.format(teacher=place, demo=DEMO, stage=STAGE))
    made = subprocess.run([halo, "convert", place / "recipe.toml", "--run", place / "run"],
                          capture_output=True, text=True)
    if made.returncode == 0 and (place / "run" / "STATUS").read_text() == "done\n":
        return ""
    return (made.stderr.strip().splitlines() or [f"exit code {made.returncode}"])[-1]


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    failures = 0
    for name, teacher in TEACHERS.items():
        with tempfile.TemporaryDirectory() as place:
            error = error_of(teacher, sys.argv[1], pathlib.Path(place))
            wrong = conversion(sys.argv[1], pathlib.Path(place))
        ok = error <= AGREE and not wrong  # not so for NaN
        failures += not ok
        print(f"{'ok    ' if ok else 'FAILED'}  {name}: {error:.1e}, at most {AGREE:.0e}; "
              f"{wrong or 'converted'}")
    print(f"transformers {transformers.__version__}: {len(TEACHERS)} teachers, {failures} failed")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
