"""Configuration of HypeNet: a decoder whose layers are softmax attention or Lightning attention."""

from transformers.configuration_utils import PretrainedConfig

ATTENTION = "attn"
LIGHTNING = "lightning-attn"

_MIXERS = {ATTENTION: ATTENTION, LIGHTNING: LIGHTNING, "lightning_attn": LIGHTNING}
_LIGHTNING_SCALES = ("1/sqrt(d)", "1/d", "none")
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
_DEFAULT_HYPE_A = 362


def parse_logit_scale(value):
    """What multiplies queries: None, ("constant", c), or ("log", a) for ln(t + a) / ln(a)."""
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return ("constant", float(value))
    words = value.split(" ") if isinstance(value, str) else []
    if words == ["hype"]:
        return ("log", _DEFAULT_HYPE_A)
    if len(words) == 2 and words[0] == "hype" and words[1].isdecimal() and int(words[1]) >= 2:
        return ("log", int(words[1]))
    raise ValueError(
        f"attn_logits_scaling is {value!r}; expected null, a number above 0, "
        'or "hype A" with an integer A >= 2'
    )


def _one_of(key, value, known):
    if value not in known:
        raise ValueError(f"{key} is {value!r}; expected one of {', '.join(known)}")
    return value


class HypeNetConfig(PretrainedConfig):
    """Keys of Qwen3's configuration and those of the two mixers. Every value that would change the
    result and is not understood is refused."""

    model_type = "hypenet"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    # A plain attribute: the base class of transformers 5 would turn it into `rope_parameters`.
    rope_scaling = None

    def __init__(
        self,
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        hidden_act="silu",
        max_position_embeddings=1048576,
        initializer_range=0.02,
        rms_norm_eps=1e-6,
        use_cache=True,
        tie_word_embeddings=False,
        rope_theta=10000.0,
        rope_scaling=None,
        attention_bias=False,
        attention_dropout=0.0,
        mixer_types=None,
        attn_use_rope=True,
        attn_use_output_gate=False,
        attn_use_qk_norm=True,
        attn_logits_scaling=None,
        lightning_nh=None,
        lightning_nkv=None,
        lightning_head_dim=None,
        lightning_scale="1/sqrt(d)",
        lightning_use_rope=True,
        lightning_rope_scaling=None,
        lightning_use_qk_norm=False,
        lightning_use_output_norm=False,
        lightning_use_output_gate=False,
        lightning_use_short_conv=False,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = (
            num_attention_heads if num_key_value_heads is None else num_key_value_heads
        )
        self.head_dim = hidden_size // num_attention_heads if head_dim is None else head_dim
        self.hidden_act = _one_of("hidden_act", hidden_act, ("silu",))
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.use_cache = use_cache
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.attention_bias = attention_bias
        self.attention_dropout = attention_dropout

        self.mixer_types = [
            _MIXERS[_one_of("mixer_types", name, _MIXERS)] for name in mixer_types or []
        ]
        self.mixer_types = self.mixer_types or [ATTENTION] * num_hidden_layers
        self.attn_use_rope = attn_use_rope
        self.attn_use_output_gate = attn_use_output_gate
        self.attn_use_qk_norm = attn_use_qk_norm
        self.attn_logits_scaling = attn_logits_scaling

        self.lightning_nh = self.num_attention_heads if lightning_nh is None else lightning_nh
        self.lightning_nkv = self.num_key_value_heads if lightning_nkv is None else lightning_nkv
        self.lightning_head_dim = (
            self.head_dim if lightning_head_dim is None else lightning_head_dim
        )
        self.lightning_scale = _one_of("lightning_scale", lightning_scale, _LIGHTNING_SCALES)
        self.lightning_use_rope = lightning_use_rope
        self.lightning_rope_scaling = lightning_rope_scaling
        self.lightning_use_qk_norm = lightning_use_qk_norm
        self.lightning_use_output_norm = lightning_use_output_norm
        self.lightning_use_output_gate = lightning_use_output_gate
        self.lightning_use_short_conv = lightning_use_short_conv
        self._refuse_what_is_not_understood(kwargs)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    def _refuse_what_is_not_understood(self, others):
        parse_logit_scale(self.attn_logits_scaling)
        if self.rope_scaling is not None:
            _one_of(
                "rope_type",
                self.rope_scaling.get("rope_type", self.rope_scaling.get("type")),
                _ROPE_TYPES,
            )
        if len(self.mixer_types) != self.num_hidden_layers:
            raise ValueError(
                f"mixer_types has {len(self.mixer_types)} entries "
                f"for {self.num_hidden_layers} layers"
            )
        for heads, kv_heads in (
            (self.num_attention_heads, self.num_key_value_heads),
            (self.lightning_nh, self.lightning_nkv),
        ):
            if heads % kv_heads != 0:
                raise ValueError(f"{kv_heads} key/value heads do not divide {heads} heads")
        absent = {
            "lightning_use_short_conv": self.lightning_use_short_conv,
            "lightning_rope_scaling": self.lightning_rope_scaling,
            **{
                key: others.get(key)
                for key in (
                    "rope_parameters",
                    "use_sliding_window",
                    "mlp_bias",
                    "lightning_learned_decay",
                )
            },
        }
        for key, value in absent.items():
            if value:
                raise ValueError(f"{key} is {value!r}, which this model does not have")

    def layers_of(self, mixer):
        """Numbers of the layers with that mixer."""
        return [layer for layer, name in enumerate(self.mixer_types) if name == mixer]
