"""Steady state of continuous batching with chunked prefill: closed forms for mean TTFT and TPOT.

One engine runs steps. A plain step decodes ``running`` sequences; a mixed step also carries up to
``chunk`` prompt tokens (vLLM v1, Sarathi-Serve). Users form a closed network of two stations: the
chunk budget, where prompts queue, and decoding, where everybody proceeds at once. Approximate mean
value analysis (Schweitzer) of that network gives the queueing time in closed form.

What is not here: bursts, percentiles and schedulers (the simulator's work), engine overheads
(calibration).
"""

from __future__ import annotations

from hwdb.citation import Numeric
from perfmodel.core import xp
from perfmodel.core.formula import formula

SARATHI = "Agrawal et al., Sarathi-Serve, arXiv 2403.02310, section 4 (stall-free batching)"
MVA = "Schweitzer's approximate MVA; Lazowska et al., Quantitative System Performance, 1984, ch. 6"
LITTLE = "Little's law"
MD1 = "Pollaczek-Khinchine, deterministic service"


@formula(
    "running", "token balance: decode tokens and the prompts that replace them share the budget"
)
def budget_running(budget: Numeric, prompt: Numeric, decode_steps: Numeric) -> Numeric:
    """Sequences decoding when every step is full [1]: B + B * prompt / decode_steps = budget."""
    return budget / (1 + prompt / decode_steps)


@formula("chunk", SARATHI)
def chunk_tokens(prompt: Numeric, waiting: Numeric, room: Numeric) -> Numeric:
    """Prompt tokens of a typical mixed step [1]: the waiting prompts, as far as there is room."""
    return xp.maximum(xp.minimum(prompt * xp.maximum(waiting, 1.0), room), 1.0)


@formula("chunks_per_step", SARATHI)
def chunks_per_step(
    others: Numeric, prompt: Numeric, decode_steps: Numeric, room: Numeric, chunk: Numeric
) -> Numeric:
    """Prompt chunks of other users in the steps a user waits for, on average [1].

    Per step ``others / decode_steps`` of the other requests finish and are replaced by new prompts;
    no step takes more than it has room for. A user's own prompt does not delay his own decoding.
    """
    return xp.minimum(others * prompt / decode_steps, room) / chunk


@formula("tpot", SARATHI)
def mean_tpot(decode_time: Numeric, mixed_time: Numeric, chunks_per_step: Numeric) -> Numeric:
    """Mean time per output token [s]: a plain step, and what each chunk of others adds to it.

    Examples
    --------
    >>> mean_tpot(0.25, 0.75, 0.5)
    0.5
    """
    return decode_time + chunks_per_step * (mixed_time - decode_time)


@formula("prefill_time", SARATHI)
def prefill_latency(
    prompt: Numeric, room: Numeric, chunk: Numeric, decode_time: Numeric, mixed_time: Numeric
) -> Numeric:
    """Time from a prompt's first step to its first token if no other shares its steps [s]."""
    steps = xp.ceil(xp.maximum(prompt / room, 1.0))
    return steps * decode_time + prompt / chunk * (mixed_time - decode_time)


@formula("prefill_slot", SARATHI)
def prefill_slot(
    prompt: Numeric, room: Numeric, chunk: Numeric, decode_time: Numeric, mixed_time: Numeric
) -> Numeric:
    """Time a prompt occupies the chunk budget when prompts queue for it [s].

    Steps are then full: ``room`` prompt tokens share the fixed cost of a step, and each token adds
    what it adds in a mixed step of ``chunk`` tokens.
    """
    return prompt * (decode_time / room + (mixed_time - decode_time) / chunk)


@formula("prefill_slot", SARATHI)
def full_slot(prompt: Numeric, room: Numeric, mixed_time: Numeric) -> Numeric:
    """Share of a full step's time that a prompt takes [s]; at saturation all steps are full."""
    return prompt / room * mixed_time


@formula("queue_time", "an arrival finds a step under way and waits for half of it on average")
def residual_step(utilisation: Numeric, tpot: Numeric) -> Numeric:
    """Mean wait of a random arrival for the step under way to end [s]."""
    return utilisation * tpot / 2


@formula("chunks_per_step", "chunk balance: rate x time of a step = chunks in a step")
def lane_chunks(
    request_rate: Numeric,
    prompt: Numeric,
    chunk: Numeric,
    decode_time: Numeric,
    mixed_time: Numeric,
) -> Numeric:
    """Prompt chunks in an engine's steps, averaged over all of them [1].

    Solves k = r (t_d + k (t_x - t_d)) with r chunks arriving per second.
    """
    arriving = request_rate * prompt / chunk
    return arriving * decode_time / xp.maximum(1 - arriving * (mixed_time - decode_time), 1e-9)


@formula("utilisation", "M/G/infinity: the number of requests in the system is Poisson")
def open_busy_share(running: Numeric, request_rate: Numeric, prefill_time: Numeric) -> Numeric:
    """Share of time at least one request is in the engine, with Poisson arrivals [1]."""
    return 1 - xp.exp(-(running + request_rate * prefill_time))


@formula("residence", MVA)
def closed_residence(
    users: Numeric, prefill_time: Numeric, prefill_slot: Numeric, decode_steps: Numeric,
    tpot: Numeric,
) -> Numeric:  # fmt: skip
    """Mean time in the prefill station with ``users`` requests circulating [s].

    Solves R = S + s (N - 1) R / (R + Z) with S the prefill latency, s the slot and Z the decoding
    time: an arriving prompt finds the (N - 1) others in the station in proportion to their time
    there.

    Examples
    --------
    >>> float(closed_residence(1.0, 0.5, 0.5, 100.0, 0.01))
    0.5
    """
    think = decode_steps * tpot
    half = (prefill_time + prefill_slot * (users - 1) - think) / 2
    return half + xp.sqrt(half**2 + prefill_time * think)


@formula("running", LITTLE)
def closed_running(
    users: Numeric, residence: Numeric, decode_steps: Numeric, tpot: Numeric
) -> Numeric:
    """Sequences decoding on average [1]: users times the share of their time spent decoding."""
    think = decode_steps * tpot
    return users * think / (residence + think)


@formula("request_rate", LITTLE)
def closed_rate(
    users: Numeric, residence: Numeric, decode_steps: Numeric, tpot: Numeric
) -> Numeric:
    """Requests finished per second by ``users`` that always have one in flight [1/s]."""
    return users / (residence + decode_steps * tpot)


@formula("request_rate", "definition")
def deployment_rate(request_rate: Numeric, lanes: Numeric) -> Numeric:
    """Requests finished per second by all lanes of a deployment [1/s]."""
    return request_rate * lanes


@formula("queue_time", LITTLE)
def admission_wait(concurrency: Numeric, users: Numeric, request_rate: Numeric) -> Numeric:
    """Wait of requests beyond the ``users`` the engine admits at once [s]."""
    return (concurrency - users) / request_rate


@formula("running", LITTLE)
def open_running(request_rate: Numeric, decode_steps: Numeric, tpot: Numeric) -> Numeric:
    """Sequences decoding on average at a given arrival rate [1]."""
    return request_rate * decode_steps * tpot


@formula("queue_time", MD1)
def open_wait(request_rate: Numeric, prefill_slot: Numeric) -> Numeric:
    """Mean wait for the chunk budget with Poisson arrivals [s]; infinite at saturation."""
    load = request_rate * prefill_slot
    free = xp.maximum(1 - load, 0.0)
    mean = load * prefill_slot / (2 * xp.maximum(free, 1e-12))
    return xp.where(free > 0, 1.0, float("inf")) * mean


@formula("ttft", "definition")
def mean_ttft(queue_time: Numeric, residence: Numeric) -> Numeric:
    """Mean time to first token: wait for admission, then the prefill station [s]."""
    return queue_time + residence


@formula("e2el", "definition")
def mean_e2el(ttft: Numeric, tpot: Numeric, decode_steps: Numeric) -> Numeric:
    """Mean end-to-end latency [s]."""
    return ttft + decode_steps * tpot
