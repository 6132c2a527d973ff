"""Reading a vendor's ``config.json`` strictly: each key is used, known to be harmless, or an error.

`Config` hands values out by key, checks them and remembers what was asked for; `Config.finish` then
names the first key nobody asked for. `Family` is what a module of this folder defines to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from perfmodel.core.errors import DataError, near
from perfmodel.models.architecture import Architecture

LARGEST: Final = 10**9
"""No size in a configuration may exceed this; it is far above every published model."""

_TOKENS = """
audio_token_id begin_suppress_tokens boa_token_id boi_token_id boi_token_index bos_token_id
cls_token_id decoder_start_token_id eoa_token_id eoa_token_index eoi_token_id eoi_token_index
eos_token_id forced_bos_token_id forced_eos_token_id ignore_index image_token_id image_token_index
mask_token_id media_placeholder_token_id pad_token_id prefix sep_token_id suppress_tokens
tokenizer_class unk_token_id video_placeholder video_token_id video_token_index vision_end_token_id
vision_start_token_id vision_token_id vision_soft_tokens_per_image mm_tokens_per_image
bad_words_ids default_output_length use_unified_vision_chunk median_filter_width forced_decoder_ids
"""
_GENERATION = """
diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
exponential_decay_length_penalty length_penalty max_length min_length no_repeat_ngram_size
num_beam_groups num_beams num_return_sequences num_logits_to_keep output_attentions
output_hidden_states output_past output_router_logits output_scores remove_invalid_values
repetition_penalty return_dict return_dict_in_generate temperature top_k top_p typical_p use_cache
cache_implementation
"""
_TRAINING = """
attention_dropout attention_probs_dropout_prob attn_pdrop dropout dropout_rate embd_pdrop
embedding_dropout hidden_dropout hidden_dropout_prob resid_pdrop activation_dropout
classifier_dropout mlp_dropout layerdrop encoder_layerdrop decoder_layerdrop summary_first_dropout
initializer_range initializer_factor initializer_cutoff_factor init_std rescale_prenorm_residual
router_aux_loss_coef router_jitter_noise input_jitter_noise aux_loss_alpha seq_aux pretraining_tp
ep_size gradient_checkpointing tf_legacy_loss time_step_floor time_step_init_scheme time_step_limit
time_step_max time_step_min time_step_scale finetuning_task label2id id2label problem_type
task_specific_params torchscript apply_spec_augment mask_time_prob mask_time_length
mask_time_min_masks mask_feature_prob mask_feature_length mask_feature_min_masks sparse_prediction
sparse_pred_ignore_index deterministic_flash_attn reference_compile repad_logits_with_grad
slow_but_exact
"""
_ARITHMETIC = """
activation_function hidden_act hidden_activation mlp_hidden_act mamba_hidden_act
projector_hidden_act dense_act_fn classifier_activation embedding_multiplier attention_multiplier
residual_multiplier logits_scaling logit_scale attention_value_scale attn_logit_softcapping
final_logit_softcapping query_pre_attn_scalar attn_scale attn_temperature_tuning floor_scale
layer_norm_eps layer_norm_epsilon layernorm_epsilon norm_eps norm_epsilon rms_norm_eps
projector_ln_eps rms_norm swiglu_limit routed_scaling_factor scoring_func norm_topk_prob n_group
topk_group scale_attn_weights scale_attn_by_inverse_layer_idx reorder_and_upcast_attn
residual_in_fp32 use_mamba_kernels chunk_size chunk_size_feed_forward hc_eps hc_sinkhorn_iters
_attn_implementation attn_implementation apply_residual_connection_post_layernorm scale_embedding
use_bidirectional_attention clip_qkv moe_shared_expert_overlap mamba_ssm_cache_dtype
mamba_ssm_dtype topk_method attention_softmax_in_fp32 skip_bias_add skip_bias_add_qkv
"""
_POSITIONS = """
alibi rope_scaling rope_theta rope_parameters rope_interleave indexer_rope_interleave
partial_rotary_factor rotary_dim rotary_pct rotary_emb_base rope_local_base_freq swa_rope_theta
compress_rope_theta global_rope_theta local_rope_theta use_mrope original_max_position_embeddings
initial_context_length qk_head_dim no_rope_layers no_rope_layer_interval rotary rope_pct
"""
_PROVENANCE = """
_name_or_path architectures auto_map dtype torch_dtype transformers_version model_type expert_dtype
use_bfloat16 quantization_config keys_to_ignore_at_inference is_decoder is_encoder_decoder
tie_encoder_decoder
"""
NEUTRAL: Final = frozenset(
    f"{_TOKENS} {_GENERATION} {_TRAINING} {_ARITHMETIC} {_POSITIONS} {_PROVENANCE}".split()
)
"""Keys that change no shape: token ids, sampling, training, scalars, rotary angles, provenance."""

NEUTRAL_IF_EMPTY: Final = frozenset(
    {"pruned_heads", "cross_attention_hidden_size", "add_cross_attention"}
)
"""Keys that change no shape while they are null, false or empty."""


class Config:
    """A configuration being read.

    Parameters
    ----------
    table : mapping
        The parsed object.
    name : str
        What the architecture will be called.
    where : str
        File (and path of keys inside it) for messages.

    Every method raises `perfmodel.core.errors.DataError` naming key and file when the value is
    missing, of another type, not finite or out of range. Several keys are synonyms: the first one
    present counts. ``null`` counts as absent.
    """

    def __init__(self, table: Mapping[str, object], name: str, where: str) -> None:
        self._table, self.name, self.where = table, name, where
        self._used: set[str] = set()
        self._children: dict[str, Config] = {}

    def has(self, key: str) -> bool:
        """Whether a key is there and not ``null`` (without using it)."""
        return self._table.get(key) is not None

    def holds(self, key: str, kind: type) -> bool:
        """Whether a key's value is of a type (without using it)."""
        return isinstance(self._table.get(key), kind)

    def keys(self, key: str) -> tuple[str, ...]:
        """Keys of a nested object whose values do not matter; empty where it is absent."""
        _, value = self._find((key,))
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return tuple(cast("dict[str, object]", value or {}))

    def size(
        self, *keys: str, default: int | None = None, least: int = 1, most: int = LARGEST
    ) -> int:
        """A whole number from ``least`` to ``most``."""
        key, value = self._find(keys)
        if value is None:
            return self._missing(keys) if default is None else default
        whole = _whole(value)
        if whole is None:
            raise self._wrong(key, value, "a whole number")
        if not least <= whole <= most:
            raise self._wrong(key, value, f"between {least} and {most:,}")
        return whole

    def count(self, *keys: str, default: int | None = None) -> int:
        """A whole number that may be zero."""
        return self.size(*keys, default=default, least=0)

    def optional(self, *keys: str) -> int | None:
        """A positive whole number, or None where it is absent."""
        return self.size(*keys) if any(self.has(key) for key in keys) else self._none(keys)

    def flag(self, *keys: str, default: bool) -> bool:
        """True or false."""
        key, value = self._find(keys)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def number(self, *keys: str, default: float | None = None) -> float:
        """A finite, non-negative number."""
        key, value = self._find(keys)
        if value is None:
            return self._missing(keys) if default is None else default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, value, "a number")
        if not 0 <= value <= LARGEST:  # false for NaN too
            raise self._wrong(key, value, f"finite, between 0 and {LARGEST:,}")
        return float(value)

    def text(self, *keys: str, default: str | None = None) -> str:
        """A string."""
        key, value = self._find(keys)
        if value is None:
            return str(self._missing(keys)) if default is None else default
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def listed(self, key: str) -> tuple[object, ...]:
        """A list, empty where it is absent."""
        _, value = self._find((key,))
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        return tuple(cast("list[object]", value))

    def names(self, key: str, length: int, known: Sequence[str]) -> tuple[str, ...]:
        """A list of ``length`` names, all ``known``; empty where it is absent."""
        found = self.listed(key)
        if found and len(found) != length:
            raise DataError(f"{self.where}: {key} has {len(found)} entries for {length} layers")
        for item in found:
            if item not in known:
                raise self._wrong(key, item, f"one of {', '.join(known)}")
        return tuple(str(item) for item in found)

    def integers(self, key: str, length: int | None = None) -> tuple[int, ...]:
        """A list of non-negative whole numbers; empty where it is absent."""
        found = self.listed(key)
        if found and length is not None and len(found) != length:
            raise DataError(f"{self.where}: {key} has {len(found)} entries for {length} layers")
        return tuple(self._integer(key, item) for item in found)

    def _integer(self, key: str, item: object) -> int:
        value = _whole(item)
        if value is None or not 0 <= value <= LARGEST:
            raise self._wrong(key, item, f"whole numbers between 0 and {LARGEST:,}")
        return value

    def pair(self, *keys: str, default: int | None = None) -> tuple[int, int]:
        """A height and width: one number for both, or a list of two."""
        key, value = self._find(keys)
        if isinstance(value, list):
            sides = self.integers(key)
            if len(sides) != 2 or 0 in sides:
                raise self._wrong(key, sides, "two positive numbers")
            return sides[0], sides[1]
        side = self.size(*keys, default=default)
        return side, side

    def fixed(self, key: str, *allowed: object) -> None:
        """Use up a key that must be absent, null or one of the allowed values."""
        _, value = self._find((key,))
        if value is not None and value not in allowed:
            due = " or ".join(map(repr, allowed)) or "absent"
            raise self._wrong(key, value, f"{due}: no known model of this family has another")

    def skip(self, *keys: str) -> None:
        """Use up keys that change no shape in this family."""
        self._used.update(keys)

    def child(self, key: str) -> Config:
        """A nested object (an empty one where it is absent), which must be used up as well."""
        if key not in self._children:
            _, value = self._find((key,))
            if value is not None and not isinstance(value, dict):
                raise self._wrong(key, value, "an object")
            table = cast("dict[str, object]", value or {})
            self._children[key] = Config(table, self.name, f"{self.where}: {key}")
        return self._children[key]

    def entries(self, key: str, length: int) -> tuple[Config, ...]:
        """A list of ``length`` objects."""
        found = self.listed(key)
        if len(found) != length or not all(isinstance(item, dict) for item in found):
            raise DataError(f"{self.where}: {key} must be a list of {length} objects")
        tables = cast("tuple[dict[str, object], ...]", found)
        for i, table in enumerate(tables):
            place = f"{key}[{i}]"
            self._children[place] = Config(table, self.name, f"{self.where}: {place}")
        return tuple(self._children[f"{key}[{i}]"] for i in range(length))

    def finish(self, ignore: Sequence[str] = ()) -> None:
        """Raise `DataError` for the first key that was neither used nor known to be neutral."""
        for key, value in self._table.items():
            neutral = key in NEUTRAL or (key in NEUTRAL_IF_EMPTY and not value)
            if key not in self._used and not neutral and key not in ignore:
                raise DataError(
                    f"{self.where}: unknown key {key!r} may change the shape; --ignore-key {key} "
                    f'or ignore=("{key}",) accepts it{near(key, self._used)}'
                )
        for child in self._children.values():
            child.finish(ignore)

    def _find(self, keys: tuple[str, ...]) -> tuple[str, object]:
        self._used.update(keys)
        for key in keys:
            if self._table.get(key) is not None:
                return key, self._table[key]
        return keys[0], None

    def _none(self, keys: tuple[str, ...]) -> None:
        self._used.update(keys)

    def _missing(self, keys: tuple[str, ...]) -> int:
        names = " or ".join(repr(key) for key in keys)
        raise DataError(f"{self.where}: missing key {names}{near(keys[0], self._table)}")

    def _wrong(self, key: str, value: object, due: str) -> DataError:
        return DataError(f"{self.where}: {key} is {_shown(value)}, must be {due}")


Reader = Callable[[Config], Architecture]


@dataclass(frozen=True, slots=True)
class Family:
    """Readers of related models, by the ``model_type`` of their ``config.json``."""

    name: str
    readers: Mapping[str, Reader]


def divided(config: Config, whole: int, parts: int, what: str) -> int:
    """``whole / parts``, raising `DataError` where it is not a whole number.

    >>> divided(Config({}, "x", "x"), 48, 6, "hidden_size / heads")
    8
    """
    if whole % parts:
        raise DataError(f"{config.where}: {what} = {whole} / {parts} is not a whole number")
    return whole // parts


def _whole(value: object) -> int | None:
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
