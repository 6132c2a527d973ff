"""State space models and their hybrids with attention: mamba, mamba2, jamba, nemotron_h."""

from __future__ import annotations

from perfmodel.core.errors import DataError
from perfmodel.models.architecture import Architecture, Layer, Run, stacked
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.families._config import Config, Family
from perfmodel.models.families._decoder import attention, decoder, depth, layer
from perfmodel.models.mixers import Mamba

UNBOUNDED = 2**20
"""Context written for models without positions or caches that a length could exceed [tokens]."""


def _rank(config: Config, key: str, hidden: int) -> int:
    """Rank of the time-step projection; ``"auto"`` is one sixteenth of the width."""
    if config.holds(key, str):
        config.fixed(key, "auto")
        return -(-hidden // 16)
    return config.size(key, default=-(-hidden // 16))


def _pure(config: Config, mixer: Mamba, hidden: int, tied: bool) -> Architecture:
    return Architecture(
        name=config.name,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        context=config.size("max_position_embeddings", default=UNBOUNDED),
        runs=stacked([layer(mixer, None, norms=1)] * depth(config, "num_hidden_layers", "n_layer")),
        tied=config.flag("tie_word_embeddings", default=tied),
    )


def _mamba(config: Config) -> Architecture:
    config.skip("d_inner", "fused_add_norm", "pad_vocab_size_multiple", "d_model", "n_layer")
    config.skip("use_mambapy", "use_associative_scan")
    config.fixed("ssm_cfg", {})
    hidden = config.size("hidden_size", "d_model")
    mixer = Mamba(
        inner=config.size("intermediate_size", default=config.size("expand", default=2) * hidden),
        state=config.size("state_size", default=16),
        conv=config.size("conv_kernel", default=4),
        dt_rank=_rank(config, "time_step_rank", hidden),
        conv_bias=config.flag("use_conv_bias", default=True),
        proj_bias=config.flag("use_bias", default=False),
    )
    return _pure(config, mixer, hidden, tied=True)


def _mamba2(config: Config) -> Architecture:
    config.skip("time_step_rank", "use_associative_scan", "norm_before_gate")
    hidden = config.size("hidden_size")
    inner = config.size("expand", default=2) * hidden
    heads, head_dim = config.size("num_heads"), config.size("head_dim")
    _check_heads(config, heads * head_dim, inner)
    mixer = Mamba(
        inner=inner,
        state=config.size("state_size"),
        conv=config.size("conv_kernel", default=4),
        heads=heads,
        groups=config.size("n_groups"),
        conv_bias=config.flag("use_conv_bias", default=True),
        proj_bias=config.flag("use_bias", default=False),
    )
    return _pure(config, mixer, hidden, tied=False)


def _check_heads(config: Config, product: int, inner: int) -> None:
    if product != inner:
        raise DataError(
            f"{config.where}: num_heads x head_dim = {product}, not expand x hidden_size = {inner}"
        )


def _jamba(config: Config) -> Architecture:
    config.skip("use_mambapy", "use_associative_scan", "calc_logits_for_entire_prompt")
    hidden, count = config.size("hidden_size"), depth(config)
    mixer, inner = attention(config, hidden), config.size("intermediate_size")
    experts, top_k = config.size("num_experts"), config.size("num_experts_per_tok")
    mamba = Mamba(
        inner=config.size("mamba_expand") * hidden,
        state=config.size("mamba_d_state"),
        conv=config.size("mamba_d_conv"),
        dt_rank=_rank(config, "mamba_dt_rank", hidden),
        inner_norms=config.flag("mamba_inner_layernorms", default=True),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        proj_bias=config.flag("mamba_proj_bias", default=False),
    )
    moe = MoeFfn(experts, top_k, inner) if experts > 1 else DenseFfn(inner)
    at, attn_every = config.count("attn_layer_offset"), config.size("attn_layer_period")
    first, moe_every = config.count("expert_layer_offset"), config.size("expert_layer_period")
    config.skip("sliding_window")
    return decoder(
        config,
        [
            layer(
                mixer if i % attn_every == at else mamba,
                moe if i % moe_every == first else DenseFfn(inner),
            )
            for i in range(count)
        ],
    )


_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_SYNONYMS = {"linear_attention": "mamba", "full_attention": "attention"}


def _nemotron_h(config: Config) -> Architecture:
    """Every layer is one block: Mamba-2, attention, a network or experts (in a latent width)."""
    config.skip("time_step_rank", "sliding_window", "attention_head_dim", "num_hidden_layers")
    config.skip("expand")
    kinds = _kinds(config, "layers_block_type", "hybrid_override_pattern")
    drafts = _kinds(config, "mtp_layers_block_type", "mtp_hybrid_override_pattern")
    blocks = {kind: _nemotron_layer(config, kind) for kind in {*kinds, *drafts}}
    if not kinds:
        raise DataError(f"{config.where}: missing key 'hybrid_override_pattern'")
    repeats = config.count("num_nextn_predict_layers", default=0)
    mtp = tuple(Run(blocks[kind], repeats) for kind in drafts) if repeats else ()
    return decoder(config, [blocks[kind] for kind in kinds], mtp=mtp)


def _kinds(config: Config, listed: str, lettered: str) -> tuple[str, ...]:
    """Kinds of layer in order, from a list of names or a string of letters."""
    names = config.listed(listed)
    known = (*_LETTERS.values(), *_SYNONYMS)
    found = config.names(listed, len(names), known)
    letters = config.text(lettered, default="")
    if set(letters) - set(_LETTERS):
        raise DataError(f"{config.where}: {lettered} must be of {' '.join(_LETTERS)}")
    kinds = tuple(_SYNONYMS.get(kind, kind) for kind in found)
    return kinds or tuple(_LETTERS[letter] for letter in letters)


def _nemotron_layer(config: Config, kind: str) -> Layer:
    if kind == "mamba":
        return layer(_nemotron_mamba(config), None, norms=1)
    if kind == "attention":
        return layer(attention(config, config.size("hidden_size")), None, norms=1)
    if kind == "moe":
        return layer(None, _nemotron_moe(config), norms=1)
    bias = config.flag("mlp_bias", default=False)
    ffn = DenseFfn(config.size("intermediate_size"), gated=False, bias=bias)
    return layer(None, ffn, norms=1)


def _nemotron_mamba(config: Config) -> Mamba:
    heads = config.size("mamba_num_heads")
    config.fixed("mamba_proj_bias", config.flag("use_bias", default=False))
    return Mamba(
        inner=heads * config.size("mamba_head_dim"),
        state=config.size("ssm_state_size"),
        conv=config.size("conv_kernel"),
        heads=heads,
        groups=config.size("n_groups"),
        conv_bias=config.flag("use_conv_bias", default=True),
        proj_bias=config.flag("use_bias", default=False),
    )


def _nemotron_moe(config: Config) -> MoeFfn:
    config.fixed("mlp_bias", False)
    config.skip("intermediate_size")
    shared = config.count("moe_shared_expert_intermediate_size", default=0)
    return MoeFfn(
        experts=config.size("n_routed_experts"),
        top_k=config.size("num_experts_per_tok"),
        inner=config.size("moe_intermediate_size"),
        shared_inner=shared * config.count("n_shared_experts", default=1),
        gated=False,
        router_bias=True,
        latent=config.count("moe_latent_size", default=0),
    )


FAMILY = Family(
    "hybrid", {"mamba": _mamba, "mamba2": _mamba2, "jamba": _jamba, "nemotron_h": _nemotron_h}
)
