"""The running batch of the compiled core: its state in small arrays, and what changes it.

numba compiles these functions into `core`, whose disk cache watches ``core.py`` alone: after a
change here, renew ``COMPILED_WITH`` there (a test says when and to what).
"""

# Arrays and numba's decorator are untyped here; the twin is the typed statement of the same rules.
# pyright: basic

from __future__ import annotations

import importlib.util
import math
from typing import Any

from perfmodel.serving.simulate.result import BINS, LOWEST, WIDTH

AVAILABLE = importlib.util.find_spec("numba") is not None

# Integer state: free blocks; decodes and the sum of their shifts (see `join`); oldest and youngest
# place; entries of the heap of finishes and of the stack of preempted; running requests;
# preemptions so far; vacant places.
FREE, BATCH, HEAD, TAIL, SUM, HEAP, STACK, PLACES, LOST, VACANT = range(10)
# Per place of the batch: request; tokens generated, less the decode steps so far while it decodes
# (which is constant); tokens cached while it is in its prompt; neighbours in order of admission.
REQUEST, OFFSET, CACHED, BEFORE, AFTER = range(5)


def jit(function: Any) -> Any:
    """Compile when first called, with a disk cache where one can be written (NUMBA_CACHE_DIR)."""
    if not AVAILABLE:
        return function
    import numba

    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to cache in
        return numba.njit(error_model="numpy")(function)


@jit
def bin_at(time):
    """Bin of a time, as `perfmodel.serving.simulate.result.bin_of`."""
    if time <= LOWEST:
        return 0
    return min(int(math.log(time / LOWEST) / WIDTH), BINS - 1)


@jit
def plane_time(planes, rows, seqs, past):
    """Time of the kernels of more than one variable [s]."""
    spent = 0.0
    for j in range(planes.shape[0]):
        a, b = planes[j, 0], planes[j, 1]
        spent += max(
            a[0] + a[1] * rows + a[2] * seqs + a[3] * past,
            b[0] + b[1] * rows + b[2] * seqs + b[3] * past,
        )
    return spent


@jit
def gather(state, seats, prompts, contexts, step, partial, linear):
    """Contexts of the decodes: their mean with the weight of all, or each with a weight of one."""
    if linear:
        contexts[0] = (state[SUM] + state[BATCH] * (step + 1)) / state[BATCH]
        return 1, state[BATCH]
    count, place = 0, state[HEAD]
    while place >= 0 and place != partial:
        contexts[count] = prompts[seats[REQUEST, place]] + seats[OFFSET, place] + step
        count += 1
        place = seats[AFTER, place]
    return count, 1


@jit
def look_up(table, contexts, entries, weight, steps):
    """Sum over the decodes of a table at their contexts ``steps`` later."""
    if entries == 1:  # a loop of one round would cost three times as much
        low = int(contexts[0])
        share = contexts[0] - low
        return weight * ((1 - share) * table[low + steps] + share * table[low + steps + 1])
    found = 0.0
    for at in range(entries):  # single contexts are whole numbers
        found += table[int(contexts[at]) + steps]
    return weight * found


@jit
def stretch(decode_sum, fixed, contexts, entries, weight, begin, steps):
    """Time of ``steps`` decode steps: each context grows by one a step.

    ``begin`` is the sum that `look_up` finds before the first.
    """
    return steps * fixed + look_up(decode_sum, contexts, entries, weight, steps) - begin


@jit
def steps_until_arrival(
    time, wait, decode, decode_sum, fixed, contexts, entries, weight, begin, most, rising
):  # fmt: skip
    """Fewest decode steps, at most ``most``, that end at or after an arrival at ``wait``."""
    if time + stretch(decode_sum, fixed, contexts, entries, weight, begin, most) <= wait:
        return most
    low, high = 0, most  # too few, enough
    if rising:  # no step is shorter than the first nor longer than the last
        shortest = fixed + look_up(decode, contexts, entries, weight, 0)
        high = min(high, int((wait - time) / shortest) + 1)
        longest = fixed + look_up(decode, contexts, entries, weight, high)
        low = min(max(low, int((wait - time) / longest) - 1), high - 1)
    while high - low > 1:
        middle = (low + high) >> 1
        if time + stretch(decode_sum, fixed, contexts, entries, weight, begin, middle) >= wait:
            high = middle
        else:
            low = middle
    return high


@jit
def push(state, heap, key, place):
    """Heap of (decode step at whose end it finishes, place)."""
    child = state[HEAP]
    state[HEAP] += 1
    while child > 0:
        parent = (child - 1) >> 1
        if heap[0, parent] <= key:
            break
        heap[0, child], heap[1, child] = heap[0, parent], heap[1, parent]
        child = parent
    heap[0, child], heap[1, child] = key, place


@jit
def remove(state, heap, at):
    """Take entry ``at`` out of the heap: the last entry moves there and settles."""
    state[HEAP] -= 1
    last = state[HEAP]
    key, place = heap[0, last], heap[1, last]
    while at > 0 and heap[0, (at - 1) >> 1] > key:
        parent = (at - 1) >> 1
        heap[0, at], heap[1, at] = heap[0, parent], heap[1, parent]
        at = parent
    while True:
        child = 2 * at + 1
        if child >= last:
            break
        if child + 1 < last and heap[0, child + 1] < heap[0, child]:
            child += 1
        if heap[0, child] >= key:
            break
        heap[0, at], heap[1, at] = heap[0, child], heap[1, child]
        at = child
    heap[0, at], heap[1, at] = key, place


@jit
def join(state, phases, shift, size):
    """One more decode; its context at a step is its constant shift plus the steps so far."""
    phases[shift % size] += 1
    state[SUM] += shift
    state[BATCH] += 1


@jit
def leave(state, phases, shift, size):
    """One decode less."""
    phases[shift % size] -= 1
    state[SUM] -= shift
    state[BATCH] -= 1


@jit
def link(state, seats, place):
    """Append to the order of admission."""
    seats[BEFORE, place], seats[AFTER, place] = state[TAIL], -1
    if state[TAIL] >= 0:
        seats[AFTER, state[TAIL]] = place
    else:
        state[HEAD] = place
    state[TAIL] = place
    state[PLACES] += 1


@jit
def unlink(state, seats, place):
    """Take out of the order of admission."""
    before, after = seats[BEFORE, place], seats[AFTER, place]
    if before >= 0:
        seats[AFTER, before] = after
    else:
        state[HEAD] = after
    if after >= 0:
        seats[BEFORE, after] = before
    else:
        state[TAIL] = before
    state[PLACES] -= 1


@jit
def blocks_of(tokens, size):
    """Blocks that hold so many tokens."""
    return (tokens + size - 1) // size


@jit
def preempt(state, seats, heap, phases, stack, last, lost, prompts, step, size, partial, sync):
    """The youngest request loses its cache and waits before all others."""
    place = state[TAIL]
    request = seats[REQUEST, place]
    if place == partial:
        state[FREE] += blocks_of(seats[CACHED, place], size)
    else:
        shift = prompts[request] + seats[OFFSET, place] - 1
        state[FREE] += blocks_of(shift + step, size)
        for at in range(state[HEAP]):
            if heap[1, at] == place:
                remove(state, heap, at)
                break
        leave(state, phases, shift, size)
        seats[OFFSET, place] += step
        last[place] = max(last[place], sync)
    unlink(state, seats, place)
    stack[state[STACK]] = place
    state[STACK] += 1
    state[LOST] += 1
    lost[place] += 1
    return place


@jit
def grow(state, seats, heap, phases, stack, last, lost, prompts, step, size, partial, sync):
    """A block for each decode that needs one, oldest first; the youngest give way."""
    needed = phases[(-step) % size]
    if needed <= state[FREE]:
        state[FREE] -= needed
        return
    place = state[HEAD]
    while place >= 0 and place != partial:
        shift = prompts[seats[REQUEST, place]] + seats[OFFSET, place] - 1
        if (shift + step) % size == 0:
            while state[FREE] == 0:
                victim = preempt(state, seats, heap, phases, stack, last, lost, prompts, step, size,
                                  partial, sync)  # fmt: skip
                if victim == place:
                    return
            state[FREE] -= 1
        place = seats[AFTER, place]


@jit
def steps_until_full(phases, batch, free, step, size, most):
    """Decode steps that the free blocks allow, at most ``most``, and the blocks they take."""
    rounds = min(free // batch, most // size)
    taken, steps = rounds * batch, rounds * size
    while steps < most:
        more = phases[(-(step + steps)) % size]
        if taken + more > free:
            break
        taken += more
        steps += 1
    return steps, taken


@jit
def count_stretch(
    row, edge, decode, fixed, contexts, entries, weight, batch, begin, end, rising
):  # fmt: skip
    """Put the durations of a stretch's steps from ``begin`` to ``end`` into the ITL histogram."""
    at = begin
    while at < end:
        found = bin_at(fixed + look_up(decode, contexts, entries, weight, at))
        low, high = at, end if rising else at + 1
        if fixed + look_up(decode, contexts, entries, weight, high - 1) < edge[found + 1]:
            low = high - 1
        while high - low > 1:
            middle = (low + high) >> 1
            if fixed + look_up(decode, contexts, entries, weight, middle) < edge[found + 1]:
                low = middle
            else:
                high = middle
        row[found] += batch * (low + 1 - at)
        at = low + 1


@jit
def count_gaps(row, seats, last, state, sync, end):
    """ITL of decodes that waited, each since its own last token."""
    place = state[HEAD]
    while place >= 0:
        row[bin_at(end - max(last[place], sync))] += 1
        place = seats[AFTER, place]


@jit
def observe(
    request, begun, first, end, lost, arrivals, outputs, slo, start_out, first_out, finish_out,
    lost_out, histogram, sums, whole,
):  # fmt: skip
    """Record a finished request."""
    if len(finish_out):
        start_out[request], first_out[request] = begun, first
        finish_out[request], lost_out[request] = end, lost
    arrival, decoded = arrivals[request], outputs[request] - 1
    ttft, e2el, queue = first - arrival, end - arrival, begun - arrival
    tpot = (end - first) / decoded if decoded else 0.0
    if not len(finish_out):
        histogram[0, bin_at(ttft)] += 1
        histogram[2, bin_at(e2el)] += 1
        histogram[3, bin_at(queue)] += 1
        if decoded:
            histogram[1, bin_at(tpot)] += 1
    sums[0] += ttft
    sums[1] += tpot
    sums[2] += e2el
    sums[3] += queue
    if ttft <= slo[0] and tpot <= slo[1] and e2el <= slo[2]:
        whole[4] += 1
