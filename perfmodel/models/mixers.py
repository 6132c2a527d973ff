"""Token mixers: every kind of attention and recurrence a layer can be made of, as facts.

A mixer lists its `Linear` maps and its remaining parameters; what counts its work is in
``operators/mixers.py``. A new kind is one dataclass here and its operators there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from perfmodel.models.blocks import Dim, Linear


@dataclass(frozen=True, slots=True)
class Indexer:
    """Lightning indexer of DeepSeek sparse attention: scores all keys, keeps ``top_k``.

    ``block`` keys are kept or dropped together (MiniMax-M3); ``weighted`` sums the heads' scores
    with learned weights. Source: DeepSeek-V3.2-Exp report, section 2.1.
    """

    heads: int
    head_dim: int
    top_k: int
    block: int = 1
    weighted: bool = True

    def linears(self, hidden: int, query_width: int) -> tuple[Linear, ...]:
        """Queries (from ``query_width`` values), one shared key, the heads' weights; replicated."""
        width = self.heads * self.head_dim
        maps = (
            Linear("index_q_proj", Dim(query_width), (Dim(width),), "attention"),
            Linear("index_k_proj", Dim(hidden), (Dim(self.head_dim),), "attention"),
        )
        weights = Linear("index_weights_proj", Dim(hidden), (Dim(self.heads),), "attention")
        return (*maps, weights) if self.weighted else maps

    @property
    def norm_elements(self) -> int:
        """Weight and bias of the key norm, or (MiniMax-M3) weights of query and key norm."""
        return 2 * self.head_dim


@dataclass(frozen=True, slots=True)
class SoftmaxAttention:
    """Multi-head, multi-query or grouped-query attention, full or with a sliding window.

    ``qk_norm`` is the number of elements of the query/key norm weights; ``gated`` adds an output
    gate as wide as the queries; ``sinks`` adds one learned logit per head; ``cross`` reads keys
    of an encoder (width ``memory_width``) instead of its own tokens; ``chunk`` is the width of
    chunked attention, where keys never cross a chunk border; ``value_dim`` a value head's width
    if it is not ``head_dim``; ``shared_kv`` uses one projection as keys and values (Gemma 4);
    ``indexer`` selects the keys that are read (MiniMax-M3).
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    chunk: int | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: int = 0
    gated: bool = False
    sinks: bool = False
    cross: bool = False
    memory_width: int | None = None
    relative_buckets: int = 0
    key_bias: bool = True
    value_dim: int | None = None
    shared_kv: bool = False
    indexer: Indexer | None = None

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Projections: QKV (fused) and output; separate ones where keys come from an encoder."""
        value_dim = self.value_dim or self.head_dim
        query = Dim(self.heads * self.head_dim, self.heads)
        queries = (query, query) if self.gated else (query,)
        keys = Dim(self.kv_heads * self.head_dim, self.kv_heads)
        values = Dim(self.kv_heads * value_dim, self.kv_heads)
        pair = (keys,) if self.shared_kv else (keys, values)
        mixed = Dim(self.heads * value_dim, self.heads)
        out = Linear("o_proj", mixed, (Dim(hidden),), "attention", self.out_bias)
        if self.cross:
            source = Dim(self.memory_width or hidden)
            return (
                Linear("q_proj", Dim(hidden), queries, "attention", self.qkv_bias),
                Linear("kv_proj", source, pair, "attention", self.qkv_bias),
                out,
            )
        fused = Linear("qkv_proj", Dim(hidden), (*queries, *pair), "attention", self.qkv_bias)
        return (fused, out, *(self.indexer.linears(hidden, hidden) if self.indexer else ()))

    def small_elements(self, hidden: int) -> int:
        """Parameters outside the linears: norms, sinks, relative position table."""
        index_norm = self.indexer.norm_elements if self.indexer else 0
        keyless = self.qkv_bias and not self.key_bias
        per_head = self.sinks + self.relative_buckets
        missing = self.kv_heads * self.head_dim * keyless
        return self.qk_norm + index_norm + self.heads * per_head - missing


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (MLA): keys and values cached as one compressed vector.

    Source: DeepSeek-V2 report, section 2.1. ``q_rank = 0`` means queries are not compressed.
    """

    heads: int
    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    indexer: Indexer | None = None

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Down projections (replicated), up projections (split by head), output, indexer."""
        heads, head_dim = self.heads, self.nope_dim + self.rope_dim
        query = Dim(heads * head_dim, heads)
        latent = Dim(self.kv_rank + self.rope_dim)
        up = Dim(heads * (self.nope_dim + self.value_dim), heads)
        if self.q_rank:
            down = (
                Linear("qkv_a_proj", Dim(hidden), (Dim(self.q_rank), latent), "attention"),
                Linear("q_b_proj", Dim(self.q_rank), (query,), "attention"),
            )
        else:
            down = (
                Linear("q_proj", Dim(hidden), (query,), "attention"),
                Linear("kv_a_proj", Dim(hidden), (latent,), "attention"),
            )
        rest = (
            Linear("kv_b_proj", Dim(self.kv_rank), (up,), "attention"),
            Linear("o_proj", Dim(heads * self.value_dim, heads), (Dim(hidden),), "attention"),
        )
        index = self.indexer.linears(hidden, self.q_rank or hidden) if self.indexer else ()
        return down + rest + index

    def small_elements(self, hidden: int) -> int:
        """Norms of the two latents and of the indexer."""
        index_norm = self.indexer.norm_elements if self.indexer else 0
        return self.q_rank + self.kv_rank + index_norm


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """One shared key-value head: a window of tokens, and before it pools of ``ratio`` tokens.

    Queries and output go through low ranks, the output in ``groups`` of heads. ``ratio = 0`` is the
    window alone; an ``indexer`` (over pooled keys, which then overlap) selects what is read.
    Sources: DeepSeek-V4 report, section 2.3; transformers 5.23.0, ``modeling_deepseek_v4.py``.
    """

    heads: int
    head_dim: int
    q_rank: int
    o_rank: int
    groups: int
    window: int
    ratio: int = 0
    indexer: Indexer | None = None

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Query, key-value, grouped output; pooled values with their weights; indexer."""
        query, ranks = Dim(self.heads * self.head_dim, self.heads), self.groups * self.o_rank
        maps = (
            Linear("qkv_a_proj", Dim(hidden), (Dim(self.q_rank), Dim(self.head_dim)), "attention"),
            Linear("q_b_proj", Dim(self.q_rank), (query,), "attention"),
            Linear(
                "o_a_proj", Dim(query.size // self.groups), (Dim(ranks, self.groups),), "attention"
            ),
            Linear("o_b_proj", Dim(ranks, self.groups), (Dim(hidden),), "attention"),
        )
        if not self.ratio:
            return maps
        pooled = Dim((2 if self.indexer else 1) * self.head_dim)
        maps += (Linear("pool_proj", Dim(hidden), (pooled, pooled), "attention"),)
        if self.indexer is None:
            return maps
        keys = Dim(2 * self.indexer.head_dim)
        index = Linear("index_pool_proj", Dim(hidden), (keys, keys), "attention")
        query_map, _, *weights = self.indexer.linears(hidden, self.q_rank)
        return (*maps, index, query_map, *weights)

    def small_elements(self, hidden: int) -> int:
        """Norms, sinks, and a bias per position inside a pool (selected pools overlap by half)."""
        index, overlap = (self.indexer.head_dim, 2) if self.indexer else (0, 1)
        pools = (self.head_dim + index) * (1 + self.ratio * overlap) if self.ratio else 0
        return self.q_rank + self.head_dim + self.heads + pools


@dataclass(frozen=True, slots=True)
class GatedDelta:
    """Gated DeltaNet linear attention: a matrix state per value head instead of a KV cache.

    Source: Yang et al., "Gated Delta Networks", arXiv 2412.06464; layout of Qwen3-Next.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int

    @property
    def conv_channels(self) -> int:
        """Channels of the short convolution over queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def state_elements(self) -> int:
        """Elements of recurrent and convolution state per sequence."""
        return self.value_heads * self.key_dim * self.value_dim + self.conv_channels * (
            self.conv - 1
        )

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Input projections (q, k, v, output gate; decay and write strength) and output."""
        keys = Dim(self.key_heads * self.key_dim, self.key_heads)
        values = Dim(self.value_heads * self.value_dim, self.value_heads)
        gates = Dim(self.value_heads, self.value_heads)
        return (
            Linear("in_proj_qkvz", Dim(hidden), (keys, keys, values, values), "mixer"),
            Linear("in_proj_ba", Dim(hidden), (gates, gates), "mixer"),
            Linear("out_proj", values, (Dim(hidden),), "mixer"),
        )

    def small_elements(self, hidden: int) -> int:
        """Convolution taps, decay rate and bias per head, output norm."""
        return self.conv_channels * self.conv + 2 * self.value_heads + self.value_dim


@dataclass(frozen=True, slots=True)
class Mamba:
    """Selective state space mixer: Mamba-1 (``heads = 0``) or Mamba-2 (scalar decay per head).

    Sources: Gu and Dao, arXiv 2312.00752 (Mamba); Dao and Gu, arXiv 2405.21060 (Mamba-2).
    ``dt_rank`` and ``inner_norms`` (Jamba's norms of dt, B and C) concern Mamba-1 only.
    """

    inner: int
    state: int
    conv: int
    heads: int = 0
    groups: int = 1
    dt_rank: int = 0
    inner_norms: bool = False
    conv_bias: bool = True
    proj_bias: bool = False

    @property
    def conv_channels(self) -> int:
        """Channels of the short convolution."""
        return self.inner + (2 * self.groups * self.state if self.heads else 0)

    @property
    def state_elements(self) -> int:
        """Elements of recurrent and convolution state per sequence."""
        return self.inner * self.state + self.conv_channels * (self.conv - 1)

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Input projection, (Mamba-1) input-dependent parameters, output projection."""
        inner = Dim(self.inner, self.heads or self.inner)
        out = Linear("out_proj", inner, (Dim(hidden),), "mixer", self.proj_bias)
        if self.heads:
            shared = Dim(self.groups * self.state, self.groups)
            parts = (inner, inner, shared, shared, Dim(self.heads, self.heads))
            return (Linear("in_proj", Dim(hidden), parts, "mixer", self.proj_bias), out)
        return (
            Linear("in_proj", Dim(hidden), (inner, inner), "mixer", self.proj_bias),
            Linear("x_proj", inner, (Dim(self.dt_rank + 2 * self.state),), "mixer"),
            Linear("dt_proj", Dim(self.dt_rank), (inner,), "mixer", bias=True),
            out,
        )

    def small_elements(self, hidden: int) -> int:
        """Convolution taps, decay, skip, time-step bias, norms."""
        conv = self.conv_channels * (self.conv + self.conv_bias)
        if self.heads:
            return conv + 3 * self.heads + self.inner
        norms = (self.dt_rank + 2 * self.state) * self.inner_norms
        return conv + self.inner * self.state + self.inner + norms


Mixer: TypeAlias = SoftmaxAttention | LatentAttention | CompressedAttention | GatedDelta | Mamba
