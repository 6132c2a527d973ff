"""How the core lays out its state: records of numbers, and two arenas for what varies in number.

A world, its replicas and the requests in flight are rows of structured arrays. Lists that a replica
has (its heap, its queues, ...) are stretches of the arena ``m`` (int64), tables of times stretches
of the arena ``x`` (float64); the fields that begin with ``at_`` say where each begins. Requests in
flight have slots that are used again, so memory does not grow with the number of requests.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.serving.requests import Counts, Times
from perfmodel.serving.simulate.fleet import Role, State

# States of a request in flight.
WAITING: Final = 0
PROMPT: Final = 1
DECODE: Final = 2
LANDED: Final = 3
MOVING: Final = 4

# The twin's enumerations, as numbers.
UP, DRAINING, OFF, STARTING, FAILED = (int(state) for state in State)
BOTH, PREFILL, DECODES = (int(role) for role in Role)

# What happens at a decode step, besides tokens (two low bits of an entry's second number).
CROSS: Final = 0  # the context crosses into the next piece of the attention's time
SHOW: Final = 1
FINISH: Final = 2

# Events.
READY: Final = 0
STAGE: Final = 1
SENT: Final = 2
COPIED: Final = 3
CHANGE: Final = 4
REBALANCE: Final = 5
SCALE: Final = 6

# Why the loop stopped.
DONE: Final = 0
NO_SLOT: Final = 1
NO_ROOM: Final = 2  # for events

NEVER: Final = 1 << 62


def _record(whole: str, real: str, small: str = "") -> np.dtype[np.void]:
    kinds = ((whole, np.int64), (real, np.float64), (small, np.int32))
    return np.dtype([(name, kind) for names, kind in kinds for name in names.split()], align=True)


WORLD: Final = _record(
    # addresses of arrays (0: not there): the state, columns of the requests, what follows what,
    # and the record's columns
    "p_m p_x p_calls p_replicas p_surfaces p_events p_starts "
    "p_arrival p_prompt p_output p_hidden p_level p_tenant p_adapter p_pool p_session p_queue "
    "p_followers p_follower p_missing p_delay p_task p_left p_root_start p_root "
    "p_out_arrival p_out_start p_out_first p_out_visible p_out_last p_out_finish "
    "p_out_preempted p_out_replica p_out_hits p_out_log "
    # the run: requests, sizes, rules
    "count replicas levels tenants hash_block users keep log "
    "routing decode_routing sessions seed before after migrates scales least pools "
    # where lists begin
    "at_due at_dirty at_ready at_turns at_homes at_servers at_stages at_histogram at_edges "
    "at_picked at_freeness at_sums at_tenants "
    "histogram "
    # the state of the loop
    "unfinished phase moment order events reserve vacant fresh slots room at queued "
    "released tasks dirty draws "
    "decode_draws stranded stranded_last trips idle_looks logged "
    # counts
    "hit_tokens swapped_blocks transfers migrations retries proposed accepted finetune_tokens "
    "scaled_up scaled_down",
    "now makespan latency per_token interval low high scale_interval scale_low scale_high "
    "start_time",
)

REPLICA: Final = _record(
    "p_m p_x p_calls p_keys p_links p_ids p_mine "
    # engine
    "index surface pool role budget max_num_seqs block_size blocks reserve mixed chunked refill "
    "layered shared span swap adapters finetune speculates seed "
    # where lists begin
    "at_phases at_heap at_late at_chunks at_heads at_tails at_tenants at_pieces at_breaks "
    "at_links entries at_adapters at_lengths at_draft at_row_steps at_sequence_steps shift kinds "
    # state
    "state dirty ended outstanding prompts moving moving_trip moving_gone sending "
    "steps admissions free idle evicted adapter_users adapter_idle adapter_loads queued "
    "landed landed_last head tail running partial decoding total heap late late_odd started "
    "owned "
    "promised stamp bin pieces "
    # the step under way, or stretch of steps
    "pending preempted grew drafted swaps loads proposed chunks decodes new rows sequences "
    "used finetuned "
    # results
    "all_steps prompt_tokens decode_tokens preemptions peak_blocks decode_launches "
    "prompt_launches",
    "foresight swap_time adapter_time adapter_step host_time price acceptance "
    "link_free on_since boundary sync late_since begin end spent raw slope decode_time "
    "attention_slope "
    "prefill_time busy block_time running_time on_time decode_attention prefill_attention",
)

CALL: Final = _record(
    "request content offset trip joined grown",
    "last arrival start first visible",
    # what it is
    "prompt output hidden level tenant adapter pool session whole "
    # where it stands
    "state generated goal base cached blocks shares home swapped target leaving stages copied "
    "landing piece draft lost hits "
    # neighbours in queues and in the batch
    "next before after",
)

EVENT: Final = _record("tick order kind who where trip", "time")

SURFACE: Final = _record(
    "p_x at_rows at_sequences at_decode at_work at_reads at_writes at_planes at_pieces "
    "longest kernels "
    "planes pieces linear",
    "overhead decode_launch prefill_launch",
)


class Shared(NamedTuple):
    """Content of prompts, and least-recently-used lists of it and of adapters."""

    start: Counts
    ids: Counts
    mine: NDArray[np.int8]  # of each entry of ids: whether its request shares the block
    keys: Counts  # of all replicas, one after the other
    links: NDArray[np.int32]


class Asked(NamedTuple):
    """Columns of the requests; those that are not there are empty."""

    arrival: Times
    prompt: Counts
    output: Counts
    hidden: Counts
    level: Counts
    tenant: Counts
    adapter: Counts
    pool: Counts
    session: Counts
    queue: Counts  # those that come by the clock; empty: all


class Graph(NamedTuple):
    """What follows what; empty without tasks and followers."""

    followers: Counts  # where each request's followers begin
    follower: Counts
    missing: Counts  # requests that one still waits for
    delay: Times
    task: Counts  # numbered in order of appearance
    left: Counts  # unfinished requests of each task
    root_start: Counts  # requests that begin each task
    root: Counts


class Out(NamedTuple):
    """Per-request columns of the record, and its log."""

    arrival: Times
    start: Times
    first: Times
    visible: Times
    last: Times
    finish: Times
    preempted: Counts
    replica: Counts
    hits: Counts
    log: Times
