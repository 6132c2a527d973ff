"""The simulator's compiled core: the twin's rules, with stretches of decode steps jumped at once.

While nobody can join, a stretch of k decode steps ends with the first finish, arrival or lack of
blocks; its time is a difference of prefix sums. State lives in small arrays, one entry per place of
the running batch, so memory does not grow with the number of requests.
"""

# numba's functions are untyped; the twin is the typed statement of the same rules.
# pyright: basic

from __future__ import annotations

import numpy as np

from perfmodel.serving.requests import Requests
from perfmodel.serving.simulate.batch import (
    AVAILABLE,
    BATCH,
    CACHED,
    FREE,
    HEAD,
    HEAP,
    LOST,
    OFFSET,
    PLACES,
    REQUEST,
    STACK,
    TAIL,
    VACANT,
    bin_at,
    blocks_of,
    count_gaps,
    count_stretch,
    gather,
    grow,
    jit,
    join,
    leave,
    link,
    look_up,
    observe,
    plane_time,
    preempt,
    push,
    remove,
    steps_until_arrival,
    steps_until_full,
    stretch,
    unlink,
)
from perfmodel.serving.simulate.policy import Engine
from perfmodel.serving.simulate.result import ITL, Record, Slo, edges
from perfmodel.serving.simulate.surface import Surface

__all__ = ["AVAILABLE", "COMPILED_WITH", "run"]

# Digest of batch.py and the histogram's constants. They are compiled into this file's functions,
# and numba renews its disk cache when this file changes, not when they do.
COMPILED_WITH = "4546bdb13925"


def run(
    surface: Surface, engine: Engine, requests: Requests, users: int, slo: Slo, record: Record
) -> None:
    """Serve all requests and fill ``record``; ``users`` > 0 closes the loop.

    The record's per-request arrays are filled if they have the requests' length.
    """
    policy = engine.policy
    arrivals = requests.arrival
    if users:  # releases: the first users at once, the others when one finishes
        arrivals = np.zeros(len(requests))
    limits = np.array([
        engine.budget, engine.max_num_seqs, engine.block_size, engine.blocks, engine.reserve,
        policy.mixed, policy.chunked, policy.refill, users,
    ], dtype=np.int64)  # fmt: skip
    real, whole = np.zeros(4), np.zeros(6, np.int64)
    _serve(
        surface.overhead, surface.rows, surface.sequences, surface.decode, surface.decode_sum,
        surface.decode_launch, surface.prefill_launch, surface.work, surface.reads, surface.writes,
        surface.planes, surface.linear, bool(np.all(np.diff(surface.decode[1:]) >= 0)), limits,
        arrivals, requests.prompt, requests.output, np.array([slo.ttft, slo.tpot, slo.e2el]),
        edges(),
        record.start, record.first, record.finish, record.preempted, record.histogram, record.sums,
        real, whole,
    )  # fmt: skip
    if len(record.arrival):
        record.arrival[:] = arrivals
    record.makespan, record.busy, record.block_time, record.running_time = real.tolist()
    record.steps, record.prompt_tokens, record.decode_tokens = whole[:3].tolist()
    record.preemptions, record.good, record.peak_blocks = whole[3:].tolist()


@jit
def _serve(
    overhead, rows, sequences, decode, decode_sum, decode_launch, prefill_launch, work, reads,
    writes, planes, linear, rising, limits, arrivals, prompts, outputs, slo, edge, start_out,
    first_out, finish_out, lost_out, histogram, sums, real, whole,
):  # fmt: skip
    budget, most_seqs, size, blocks, reserve = limits[0], limits[1], limits[2], limits[3], limits[4]
    mixed, chunked, refill, users = limits[5] == 1, limits[6] == 1, limits[7] == 1, limits[8]
    count = len(prompts)
    state = np.zeros(10, np.int64)
    state[FREE], state[HEAD], state[TAIL], state[VACANT] = blocks, -1, -1, most_seqs
    seats = np.zeros((5, most_seqs), np.int64)
    heap = np.zeros((2, most_seqs), np.int64)
    stack, lost = np.zeros(most_seqs, np.int64), np.zeros(most_seqs, np.int64)
    vacant = np.arange(most_seqs)
    begun, first, last = np.zeros(most_seqs), np.zeros(most_seqs), np.zeros(most_seqs)
    phases, contexts = np.zeros(size, np.int64), np.zeros(most_seqs)
    chunk_place, chunk_new = np.zeros(most_seqs, np.int64), np.zeros(most_seqs, np.int64)
    itl = histogram[ITL]
    time, sync = 0.0, -1.0
    step, head, arrived, finished, partial = 0, 0, 0, 0, -1
    decoding = False  # whether this batch has begun to decode
    released = min(users, count) if users else count

    while finished < count:
        while arrived < released and arrivals[arrived] <= time:
            arrived += 1
        waiting = state[STACK] > 0 or head < arrived
        if state[PLACES] == 0 and not waiting:
            time = arrivals[arrived]
            continue
        may_join = state[PLACES] < most_seqs and (refill or not decoding)

        # Can a stretch of plain decode steps begin here?
        steps = 0
        batch = state[BATCH]
        if partial < 0 and batch > 0:
            blocked = True
            if waiting and may_join:
                if state[STACK] > 0:
                    place = stack[state[STACK] - 1]
                    new = prompts[seats[REQUEST, place]] + seats[OFFSET, place]
                else:
                    new = prompts[head]
                room = budget - batch if mixed else budget
                grown = phases[(-step) % size] if mixed else 0
                if chunked:
                    new = min(new, room)
                blocked = room <= 0 or blocks_of(new, size) > state[FREE] - grown - reserve
            if blocked:
                entries, weight = gather(state, seats, prompts, contexts, step, -1, linear)
                fixed = overhead + decode_launch + rows[batch] + sequences[batch]
                fixed += plane_time(planes, batch, batch, 0)
                begin = look_up(decode_sum, contexts, entries, weight, 0)
                most = heap[0, 0] - step
                if not waiting and may_join and arrived < released:
                    most = steps_until_arrival(
                        time, arrivals[arrived], decode, decode_sum, fixed, contexts, entries,
                        weight, begin, most, rising,
                    )  # fmt: skip
                steps, taken = steps_until_full(phases, batch, state[FREE], step, size, most)
        if steps > 0:
            spent = stretch(decode_sum, fixed, contexts, entries, weight, begin, steps)
            used = blocks - state[FREE]
            grown = min(phases[(-step) % size], taken)
            state[FREE] -= taken
            real[2] += spent * (used + (grown + taken) / 2)
            at_once = 0
            if not mixed and sync != time:  # the first step ends waits of unlike length
                at_once = 1
                end = time + fixed + look_up(decode, contexts, entries, weight, 0)
                count_gaps(itl, seats, last, state, sync, end)
            count_stretch(itl, edge, decode, fixed, contexts, entries, weight, batch, at_once,
                          steps, rising)  # fmt: skip
            tokens, decodes, chunks = 0, batch * steps, 0
            step += steps
        else:
            steps, chunks, decodes, tokens, past = 1, 0, 0, 0, 0
            spent = 0.0
            losses = state[LOST]
            room = budget
            if mixed:
                grow(state, seats, heap, phases, stack, last, lost, prompts, step, size, partial,
                      sync)  # fmt: skip
                decodes = state[BATCH]
                room -= decodes
                if decodes:  # before prompts join the order of admission
                    entries, weight = gather(state, seats, prompts, contexts, step, partial, linear)
                    spent = decode_launch + look_up(decode, contexts, entries, weight, 0)
            if partial >= 0 and state[TAIL] == partial:
                cached = seats[CACHED, partial]
                goal = prompts[seats[REQUEST, partial]] + seats[OFFSET, partial]
                new = min(goal - cached, room)
                more = blocks_of(cached + new, size) - blocks_of(cached, size)
                if more > state[FREE]:
                    preempt(state, seats, heap, phases, stack, last, lost, prompts, step, size,
                             partial, sync)  # fmt: skip
                else:
                    state[FREE] -= more
                    chunk_place[0], chunk_new[0], chunks = partial, new, 1
                    room -= new
            partial = -1
            while (
                room > 0
                and state[LOST] == losses
                and state[PLACES] < most_seqs
                and (refill or not decoding)
                and (state[STACK] > 0 or head < arrived)
            ):
                if state[STACK] > 0:
                    place = stack[state[STACK] - 1]
                    new = prompts[seats[REQUEST, place]] + seats[OFFSET, place]
                else:
                    place = -1
                    new = prompts[head]
                if chunked:
                    new = min(new, room)
                elif new > room and chunks > 0:
                    break
                more = blocks_of(new, size)
                if more > state[FREE] - (reserve if state[PLACES] > 0 else 0):
                    break
                if place >= 0:
                    state[STACK] -= 1
                else:
                    state[VACANT] -= 1
                    place = vacant[state[VACANT]]
                    seats[REQUEST, place], seats[OFFSET, place] = head, 0
                    begun[place], lost[place] = time, 0
                    head += 1
                seats[CACHED, place] = 0
                link(state, seats, place)
                state[FREE] -= more
                chunk_place[chunks], chunk_new[chunks] = place, new
                chunks += 1
                room -= new
            if not mixed and chunks == 0:
                grow(state, seats, heap, phases, stack, last, lost, prompts, step, size, partial,
                      sync)  # fmt: skip
                decodes = state[BATCH]
                entries, weight = gather(state, seats, prompts, contexts, step, -1, linear)
                spent = decode_launch + look_up(decode, contexts, entries, weight, 0)
            spent += overhead
            if chunks:
                spent += prefill_launch
            for at in range(chunks):
                new, cached = chunk_new[at], seats[CACHED, chunk_place[at]]
                tokens, past = tokens + new, past + cached
                for j in range(len(writes)):
                    compute = work[j, cached + new] - work[j, cached]
                    spent += max(compute, reads[j, cached] + writes[j] * new)
            spent += rows[tokens + decodes] + sequences[decodes + chunks]
            spent += plane_time(planes, tokens + decodes, decodes + chunks, past)
            real[2] += spent * (blocks - state[FREE])
            if decodes:
                if not mixed and sync != time:
                    count_gaps(itl, seats, last, state, sync, time + spent)
                else:
                    itl[bin_at(spent)] += decodes
                step += 1

        real[1] += spent
        real[3] += spent * state[PLACES]
        whole[0] += steps
        whole[1] += tokens
        whole[2] += decodes
        whole[5] = max(whole[5], blocks - state[FREE])
        time += spent
        done = finished
        if decodes:
            sync = time
            decoding = True
            while state[HEAP] > 0 and heap[0, 0] == step:
                place = heap[1, 0]
                remove(state, heap, 0)
                request = seats[REQUEST, place]
                shift = prompts[request] + seats[OFFSET, place] - 1
                leave(state, phases, shift, size)
                unlink(state, seats, place)
                state[FREE] += blocks_of(shift + step, size)
                vacant[state[VACANT]] = place
                state[VACANT] += 1
                observe(request, begun[place], first[place], time, lost[place], arrivals, outputs,
                         slo, start_out, first_out, finish_out, lost_out, histogram, sums,
                         whole)  # fmt: skip
                finished += 1
        for at in range(chunks):
            place = chunk_place[at]
            request, generated = seats[REQUEST, place], seats[OFFSET, place]
            seats[CACHED, place] += chunk_new[at]
            goal = prompts[request] + generated
            if seats[CACHED, place] < goal:
                partial = place
                continue
            if generated:
                itl[bin_at(time - last[place])] += 1
            else:
                first[place] = time
            generated += 1
            last[place] = time
            if generated < outputs[request]:
                seats[OFFSET, place] = generated - step
                push(state, heap, step + outputs[request] - generated, place)
                join(state, phases, goal - step, size)
                continue
            unlink(state, seats, place)
            state[FREE] += blocks_of(goal, size)
            vacant[state[VACANT]] = place
            state[VACANT] += 1
            observe(request, begun[place], first[place], time, lost[place], arrivals, outputs, slo,
                     start_out, first_out, finish_out, lost_out, histogram, sums,
                     whole)  # fmt: skip
            finished += 1
        if users:
            for _ in range(min(finished - done, count - released)):
                arrivals[released] = time
                released += 1
        if state[PLACES] == 0:
            decoding = False
    real[0] = time
    whole[3] = state[LOST]
