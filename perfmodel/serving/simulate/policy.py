"""Schedulers as data: what a step may contain and when waiting requests join.

A policy is a few yes-or-no answers and two shares; the twin and the compiled core read the same
numbers. Running requests come first, then waiting ones by priority and in order of arrival
(preempted ones before the others of their priority); when cache blocks run out the youngest running
request of the lowest priority gives way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perfmodel.core.errors import UsageError, near
from perfmodel.serving.requests import Counts, Times


@dataclass(frozen=True, slots=True)
class Policy:
    """How an engine fills its steps.

    Parameters
    ----------
    mixed : bool
        Prompts and decodes share a step; else steps of prompts go before steps of decodes.
    chunked : bool
        A prompt may be cut to fit the token budget; else it is computed whole, beside no other
        prompt if it exceeds what is left of the budget.
    refill : bool
        Requests join as soon as there is room; else a batch runs until all its requests are done
        (those that are done leave, their places stay empty).
    source : str
        Who does it so.
    watermark : float
        Share of cache blocks that stays free when a request is admitted beside others [1].
    foresight : float
        Share of the blocks that running requests have yet to grow into (and the newcomer's own)
        that is kept free when a request is admitted beside others: 1 never preempts [1].
    layered : bool
        A prompt passes through a part of the layers in each step, all its tokens at once, instead
        of a part of its tokens through all layers.
    budget : int, optional
        Tokens of a step, where the engine's own default differs from vLLM's.
    """

    mixed: bool
    chunked: bool
    refill: bool
    source: str
    watermark: float = 0.0
    foresight: float = 0.0
    layered: bool = False
    budget: int | None = None


POLICIES: Final[dict[str, Policy]] = {
    "vllm-v1": Policy(True, True, True, "vLLM v1: chunked prefill beside decodes"),
    "sarathi": Policy(
        True, True, True, "Agrawal et al., Sarathi-Serve, arXiv 2403.02310, section 4", budget=512),
    "splitfuse": Policy(
        True, True, True, "Holmes et al., DeepSpeed-FastGen, arXiv 2401.08671, section 3.B",
        budget=768),
    "layered": Policy(
        True, True, True, "Lee et al., layered prefill, arXiv 2510.08055", layered=True,
        budget=512),
    "prefill-first": Policy(
        False, False, True, "Kwon et al., PagedAttention, arXiv 2309.06180; vLLM v0",
        watermark=0.01),
    "sglang": Policy(
        False, True, True,
        "SGLang: chunked prefill before decodes, part of the new tokens reserved at admission "
        "(new_token_ratio)", foresight=0.7),
    "trtllm": Policy(
        True, False, True,
        "TensorRT-LLM: in-flight batching under GUARANTEED_NO_EVICT", foresight=1.0),
    "orca": Policy(
        True, False, True,
        "Yu et al., Orca, OSDI 2022: iteration-level scheduling, memory for the longest answer "
        "reserved at admission", foresight=1.0),
    "static": Policy(
        False, False, False, "request-level batching, the baseline of Orca, OSDI 2022",
        foresight=1.0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Speculation:
    """Speculative decoding: a draft model proposes tokens, one step verifies them.

    Parameters
    ----------
    acceptance : float
        Chance that a proposed token is accepted if those before it were [1].
    lengths : array of int64, shape (most sequences + 1,)
        Tokens proposed per sequence, by the number of sequences that decode: adaptive length.
    draft : array of float64, shape (most sequences + 1,)
        Time to propose one token for so many sequences [s].
    seed : int
        Of the acceptances.
    """

    acceptance: float
    lengths: Counts
    draft: Times
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Engine:
    """Limits and habits of one replica.

    Parameters
    ----------
    policy : Policy
    budget : int
        Tokens of a step.
    max_num_seqs : int
        Requests that run at once; at most ``budget``.
    block_size : int
        Tokens per cache block.
    blocks : int
        Cache blocks of the replica.
    prefix_cache : bool
        Blocks of equal content are kept and shared.
    swap_time : float, optional
        Preempted requests move to host memory, at so much time per block each way, instead of being
        computed again [s].
    adapters : int
        LoRA adapters in device memory at once; 0: requests' adapters play no role. A request for
        whose adapter there is no place lets others pass (vLLM v1).
    adapter_time, adapter_step : float
        Time to load an adapter, and what each one in the batch adds to a step [s].
    finetune : int
        Fine-tuning tokens that fill up each step, as far as the budget goes.
    host_time : float
        Work of the host per sequence and step, beside the device: no step is shorter [s].
    speculation : Speculation, optional
    """

    policy: Policy
    budget: int
    max_num_seqs: int
    block_size: int
    blocks: int
    prefix_cache: bool = False
    swap_time: float | None = None
    adapters: int = 0
    adapter_time: float = 0.0
    adapter_step: float = 0.0
    finetune: int = 0
    host_time: float = 0.0
    speculation: Speculation | None = None

    @property
    def reserve(self) -> int:
        """Blocks that stay free when a request is admitted beside others."""
        return int(self.policy.watermark * self.blocks)


# A token of parameter-efficient fine-tuning passes forward and, for the gradients of the inputs
# alone, backward: 4 N FLOPs against 2 N (Miao et al., FlexLLM, arXiv 2402.18789).
FINETUNE_ROWS: Final = 2


def policy(name: str) -> Policy:
    """Look a policy up.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    if name not in POLICIES:
        known = ", ".join(POLICIES)
        raise UsageError(f"no scheduler named {name!r}{near(name, POLICIES)} (there are {known})")
    return POLICIES[name]
