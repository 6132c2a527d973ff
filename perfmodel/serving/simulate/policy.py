"""Schedulers as data: what a step may contain and when waiting requests join.

A policy is three yes-or-no answers and a reserve; the twin and the compiled core read the same four
numbers. Running requests come first, then waiting ones in order of arrival (preempted ones before
all others); when cache blocks run out the youngest running request is preempted and recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perfmodel.core.errors import UsageError, near


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
    watermark : float
        Share of cache blocks that stays free when a request is admitted beside others [1].
    source : str
        Who does it so.
    """

    mixed: bool
    chunked: bool
    refill: bool
    watermark: float
    source: str


POLICIES: Final[dict[str, Policy]] = {
    "vllm-v1": Policy(
        True, True, True, 0.0,
        "vLLM v1; Agrawal et al., Sarathi-Serve, arXiv 2403.02310, section 4"),
    "prefill-first": Policy(
        False, False, True, 0.01, "Kwon et al., PagedAttention, arXiv 2309.06180; vLLM v0"),
    "orca": Policy(
        True, False, True, 0.0, "Yu et al., Orca, OSDI 2022: iteration-level scheduling"),
    "static": Policy(
        False, False, False, 0.0, "request-level batching, the baseline of Orca, OSDI 2022"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Engine:
    """Limits of one replica.

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
    """

    policy: Policy
    budget: int
    max_num_seqs: int
    block_size: int
    blocks: int

    @property
    def reserve(self) -> int:
        """Blocks that stay free when a request is admitted beside others."""
        return int(self.policy.watermark * self.blocks)


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
