"""FLOPs of small networks against PyTorch's own counter, on meta tensors (no data, no device).

Each network is written out in plain PyTorch, with no thought of `perfmodel`. PyTorch counts the
whole score matrix of attention; a causal decoder computes its lower triangle, whose share is stated
here.
"""

from typing import Any

import pytest

from perfmodel.core.precision import SCHEMES
from perfmodel.core.types import TokenGroup
from perfmodel.models.architecture import Architecture, Layer, Run
from perfmodel.models.blocks import DenseFfn, MoeFfn
from perfmodel.models.mixers import LatentAttention, SoftmaxAttention
from perfmodel.operators.model import step_operators
from perfmodel.parallel.layout import Layout

torch: Any = pytest.importorskip("torch", reason="the independent FLOP counter is PyTorch's")

SEQS, NEW = 3, 10


def model_flops(architecture: Architecture, group: TokenGroup) -> dict[str, float]:
    """Our count: matrices (dense and expert) and attention cores."""
    found = {"matrices": 0.0, "attention": 0.0}
    for operator in step_operators(architecture, Layout(), SCHEMES["bf16"], [group]):
        if operator.family in ("gemm", "moe"):
            found["matrices"] += float(operator.count * operator.flops)
        elif operator.family == "attention":
            found["attention"] += float(operator.count * operator.flops)
    return found


class Net:
    """Meta tensors and PyTorch's counter; weights are used through `linear`, scores by `attend`."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        self.counter = FlopCounterMode(display=False)

    def tensor(self, *shape: int) -> Any:
        return torch.empty(*shape, device="meta")

    def linear(self, x: Any, cols: int, bias: bool = False) -> Any:
        made = torch.nn.Linear(x.shape[-1], cols, bias=bias, device="meta")
        return made(x)

    def attend(self, q: Any, k: Any, v: Any) -> Any:
        """[sequences, heads, tokens, dim] -> [sequences x tokens, heads x dim]."""
        mixed = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        return mixed.transpose(1, 2).reshape(q.shape[0] * q.shape[2], -1)

    def count(self) -> dict[str, int]:
        batched = {"bmm", "baddbmm"}
        counts = self.counter.get_flop_counts()["Global"]
        names = {operator: str(operator).rpartition(".")[2] for operator in counts}
        assert set(names.values()) <= batched | {"mm", "addmm"}
        return {
            "matrices": sum(n for key, n in counts.items() if names[key] not in batched),
            "attention": sum(n for key, n in counts.items() if names[key] in batched),
        }


def heads_first(x: Any, heads: int) -> Any:
    return x.reshape(SEQS, -1, heads, x.shape[-1] // heads).transpose(1, 2)


HIDDEN, VOCAB, LAYERS = 48, 100, 2
GQA = SoftmaxAttention(heads=6, kv_heads=2, head_dim=8)
DENSE = Architecture("dense", HIDDEN, VOCAB, 4096, (Run(Layer("l", GQA, DenseFfn(80)), LAYERS),))


def gqa_network(new: int, past: int) -> dict[str, int]:
    net = Net()
    with net.counter:
        x = net.tensor(SEQS * new, HIDDEN)
        for _ in range(LAYERS):
            q = heads_first(net.linear(x, 6 * 8), 6)
            k = heads_first(net.linear(x, 2 * 8), 2)
            v = heads_first(net.linear(x, 2 * 8), 2)
            cached = net.tensor(SEQS, 2, past, 8)
            k, v = (torch.cat((cached, part), 2).repeat_interleave(3, 1) for part in (k, v))
            x = x + net.linear(net.attend(q, k, v), HIDDEN)
            gated = torch.nn.functional.silu(net.linear(x, 80)) * net.linear(x, 80)
            x = x + net.linear(gated, HIDDEN)
        last = x.reshape(SEQS, new, HIDDEN)[:, -1]
        net.linear(last, VOCAB)
    return net.count()


def test_dense_prefill() -> None:
    reference = gqa_network(NEW, 0)
    ours = model_flops(DENSE, TokenGroup(float(SEQS), float(NEW), 0.0))
    assert ours["matrices"] == reference["matrices"]
    # lower triangle with its diagonal: n (n + 1) / 2 of the n x n scores PyTorch counts
    assert ours["attention"] == reference["attention"] * (NEW + 1) / (2 * NEW)


@pytest.mark.parametrize("past", [0, 1, 500])
def test_dense_decode(past: int) -> None:
    reference = gqa_network(1, past)
    group = TokenGroup(float(SEQS), 1.0, float(past), "decode")
    assert model_flops(DENSE, group) == reference  # one query sees everything: no triangle


def test_dense_chunk_behind_a_cache() -> None:
    new, past = 4, 9
    reference = gqa_network(new, past)
    ours = model_flops(DENSE, TokenGroup(float(SEQS), float(new), float(past)))
    assert ours["matrices"] == reference["matrices"]
    # rows of 10, 11, 12 and 13 keys instead of four rows of 13
    assert ours["attention"] == reference["attention"] * (10 + 11 + 12 + 13) / (4 * 13)


def test_encoder() -> None:
    mixer = SoftmaxAttention(heads=4, kv_heads=4, head_dim=16, qkv_bias=True, out_bias=True)
    layer = Layer("block", mixer, DenseFfn(128, gated=False, bias=True))
    encoder = Architecture(
        "encoder", 64, VOCAB, 512, (Run(layer, 3),), causal=False, head=False, norm_bias=True
    )
    net = Net()
    with net.counter:
        x = net.tensor(SEQS * NEW, 64)
        for _ in range(3):
            q, k, v = (heads_first(net.linear(x, 64, bias=True), 4) for _ in range(3))
            x = x + net.linear(net.attend(q, k, v), 64, bias=True)
            x = x + net.linear(torch.relu(net.linear(x, 128, bias=True)), 64, bias=True)
    assert model_flops(encoder, TokenGroup(float(SEQS), float(NEW), 0.0)) == net.count()


@pytest.mark.parametrize(("shared", "latent"), [(0, 0), (24, 0), (24, 16)])
def test_mixture_of_experts(shared: int, latent: int) -> None:
    experts, top_k, inner = 8, 3, 32
    ffn = MoeFfn(experts, top_k, inner, shared_inner=shared, latent=latent)
    moe = Architecture("moe", HIDDEN, VOCAB, 4096, (Run(Layer("l", None, ffn), 1),), head=False)
    net = Net()
    tokens = SEQS * NEW
    with net.counter:
        x = net.tensor(tokens, HIDDEN)
        net.linear(x, experts)
        entering = net.linear(x, latent) if latent else x
        for expert in range(experts):
            # token t goes to the experts t, t + 1, t + 2 (mod 8)
            mine = [t for t in range(tokens) if (expert - t) % experts < top_k]
            routed = entering[mine]
            gated = torch.nn.functional.silu(net.linear(routed, inner)) * net.linear(routed, inner)
            net.linear(gated, entering.shape[-1])
        if latent:
            net.linear(entering, HIDDEN)
        if shared:
            net.linear(net.linear(x, shared) * net.linear(x, shared), HIDDEN)
    ours = model_flops(moe, TokenGroup(float(SEQS), float(NEW), 0.0))
    assert ours == net.count()


HEADS, Q_RANK, KV_RANK, NOPE, ROPE, VALUE = 4, 24, 20, 8, 6, 10
MLA = LatentAttention(HEADS, Q_RANK, KV_RANK, NOPE, ROPE, VALUE)
LATENT = Architecture(
    "mla", HIDDEN, VOCAB, 4096, (Run(Layer("l", MLA, DenseFfn(80)), LAYERS),), head=False
)


def _latents(net: Net, x: Any) -> tuple[Any, Any, Any]:
    """Queries by head, compressed keys-values, shared rotary key."""
    q = heads_first(net.linear(net.linear(x, Q_RANK), HEADS * (NOPE + ROPE)), HEADS)
    compressed = net.linear(x, KV_RANK)
    return q, compressed, net.linear(x, ROPE)


def _dense_ffn(net: Net, x: Any) -> Any:
    return net.linear(net.linear(x, 80) * net.linear(x, 80), HIDDEN)


def test_latent_attention_prefill_expands() -> None:
    net = Net()
    with net.counter:
        x = net.tensor(SEQS * NEW, HIDDEN)
        for _ in range(LAYERS):
            q, compressed, rotary = _latents(net, x)
            up = heads_first(net.linear(compressed, HEADS * (NOPE + VALUE)), HEADS)
            shared = heads_first(rotary, 1).expand(SEQS, HEADS, NEW, ROPE)
            k = torch.cat((up[..., :NOPE], shared), -1)
            x = net.linear(net.attend(q, k, up[..., NOPE:]), HIDDEN)
            x = _dense_ffn(net, x)
    reference = net.count()
    ours = model_flops(LATENT, TokenGroup(float(SEQS), float(NEW), 0.0))
    assert ours["matrices"] == reference["matrices"]
    assert ours["attention"] == reference["attention"] * (NEW + 1) / (2 * NEW)


def test_latent_attention_decode_absorbs() -> None:
    past = 30
    net = Net()
    with net.counter:
        x = net.tensor(SEQS, HIDDEN)
        for _ in range(LAYERS):
            q, compressed, rotary = _latents(net, x)
            by_head = q.squeeze(2).transpose(0, 1)  # heads, sequences, dim
            absorbed = by_head[..., :NOPE] @ net.tensor(HEADS, NOPE, KV_RANK)
            query = torch.cat((absorbed, by_head[..., NOPE:]), -1).transpose(0, 1).unsqueeze(2)
            one = torch.cat((compressed, rotary), -1).reshape(SEQS, 1, 1, KV_RANK + ROPE)
            cache = torch.cat((net.tensor(SEQS, 1, past, KV_RANK + ROPE), one), 2)
            keys = cache.expand(SEQS, HEADS, past + 1, KV_RANK + ROPE)
            mixed = net.attend(query, keys, keys[..., :KV_RANK])
            latent = mixed.reshape(SEQS, HEADS, KV_RANK).transpose(0, 1)
            value = latent @ net.tensor(HEADS, KV_RANK, VALUE)
            x = net.linear(value.transpose(0, 1).reshape(SEQS, HEADS * VALUE), HIDDEN)
            x = _dense_ffn(net, x)
    # PyTorch books the absorbed projections, which are batched by head, beside the scores
    absorbed_flops = LAYERS * 2 * SEQS * HEADS * (NOPE * KV_RANK + KV_RANK * VALUE)
    reference = net.count()
    ours = model_flops(LATENT, TokenGroup(float(SEQS), 1.0, float(past), "decode"))
    assert ours["matrices"] == reference["matrices"] + absorbed_flops
    assert ours["attention"] == reference["attention"] - absorbed_flops


def test_cross_attention_of_an_encoder_decoder() -> None:
    """One decoder layer on 5 tokens that reads 12 encoded tokens of width 32."""
    own = SoftmaxAttention(heads=4, kv_heads=4, head_dim=12)
    cross = SoftmaxAttention(heads=4, kv_heads=4, head_dim=12, cross=True, memory_width=32)
    encoder_mixer = SoftmaxAttention(heads=2, kv_heads=2, head_dim=16)
    encoder = Architecture(
        "e", 32, 0, 64, (Run(Layer("l", encoder_mixer, DenseFfn(64, gated=False)), 1),),
        causal=False, head=False,
    )  # fmt: skip
    layer = Layer("l", own, DenseFfn(80, gated=False), cross, norms=3)
    decoder = Architecture("d", HIDDEN, VOCAB, 64, (Run(layer, 1),), encoder=encoder)
    new, memory = 5, 12
    net, causal = Net(), Net()
    with net.counter:
        y = net.tensor(SEQS * memory, 32)
        q, k, v = (heads_first(net.linear(y, 32), 2) for _ in range(3))
        y = net.linear(net.attend(q, k, v), 32)
        y = net.linear(net.linear(y, 64), 32)
        x = net.tensor(SEQS * new, HIDDEN)
        q, k, v = (heads_first(net.linear(x, 48), 4) for _ in range(3))
        with causal.counter:
            mixed = net.attend(q, k, v)
        x = net.linear(mixed, HIDDEN)
        q = heads_first(net.linear(x, 48), 4)
        k, v = (heads_first(net.linear(y, 48), 4) for _ in range(2))
        x = net.linear(net.attend(q, k, v), HIDDEN)
        x = net.linear(net.linear(x, 80), HIDDEN)
        net.linear(x.reshape(SEQS, new, HIDDEN)[:, -1], VOCAB)
    group = TokenGroup(float(SEQS), float(new), 0.0, "prefill", float(memory), float(memory))
    ours, reference = model_flops(decoder, group), net.count()
    triangle = causal.count()["attention"] * (new - 1) / (2 * new)
    assert ours["matrices"] == reference["matrices"]
    assert ours["attention"] == reference["attention"] - triangle
