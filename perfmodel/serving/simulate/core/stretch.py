"""Stretches of decode steps: while nobody can join, each lasts a constant longer than the last.

Attention's time is linear in the contexts, which grow by one a step, until a request ends, shows
its first token or crosses into another linear piece. So a stretch is an arithmetic progression: its
time, the step under way at a moment and the steps within a bin of the histogram have closed forms.
"""

# pyright: basic

from __future__ import annotations

import math

from perfmodel.serving.simulate.core.blocks import evict
from perfmodel.serving.simulate.core.compile import jit
from perfmodel.serving.simulate.core.lists import due_step
from perfmodel.serving.simulate.core.memory import calls_at, ints, reals
from perfmodel.serving.simulate.core.numbers import bin_at, tick
from perfmodel.serving.simulate.core.state import NEVER
from perfmodel.serving.simulate.record import BINS, ITL


@jit
def duration(first, slope, steps):
    """Time of so many steps [s]."""
    return steps * first + slope * (0.5 * steps * (steps - 1))


@jit
def extend(replica, surface):
    """Let the decode step just begun be the first of a stretch."""
    m = ints(replica.p_m)
    x = reals(replica.p_x)
    steps = due_step(replica) - replica.steps
    if steps == 1:
        return
    slope = 0.0
    for piece in range(surface.pieces):
        slope += m[replica.at_pieces + 2 * piece] * x[surface.at_pieces + 2 * piece + 1]
    replica.attention_slope = slope
    if replica.host_time > 0.0:
        floor = replica.host_time * replica.decodes
        raw = replica.raw
        if (raw <= floor) != (raw + slope * (steps - 1) <= floor):
            steps = max(min(steps, int((floor - raw) / slope)), 1)
        if raw <= floor:  # steps below the floor all last the floor
            slope = 0.0
    rounds = (steps - 1 + replica.block_size - 1) // replica.block_size
    if replica.decodes * rounds > replica.free:
        steps = steps_until_full(replica, steps)
    replica.pending, replica.slope = steps, slope
    if steps > 1:
        replica.end = replica.begin + duration(replica.spent, slope, steps)


@jit
def steps_until_full(replica, most):
    """Steps that the free blocks allow, at most ``most``; the first has its blocks."""
    m = ints(replica.p_m)
    size = replica.block_size
    rounds = min(replica.free // replica.decodes, (most - 1) // size)
    taken, steps = rounds * replica.decodes, 1 + rounds * size
    while steps < most:
        taken += m[replica.at_phases + (-(replica.steps + steps)) % size]
        if taken > replica.free:
            break
        steps += 1
    return steps


@jit
def growth_after_first(replica, steps):
    """Blocks that a stretch takes after its first step, and their integral over time.

    Growth repeats every ``block_size`` steps: sums over whole rounds have closed forms.
    """
    m = ints(replica.p_m)
    size, batch, slope = replica.block_size, replica.decodes, replica.slope
    phase, grown, integral = (-(replica.steps + 1)) % size, 0, 0.0
    for at in range(1, min(steps, size + 1)):
        grown += m[replica.at_phases + phase]
        phase = phase - 1 if phase else size - 1
        rounds = (steps - 1 - at) // size  # after which this step comes again
        time = replica.spent + slope * at
        integral += time * grown
        if rounds:
            ones = 0.5 * rounds * (rounds + 1)
            squares = ones * (2 * rounds + 1) / 3.0
            integral += rounds * time * grown + ones * (time * batch + slope * size * grown)
            integral += squares * slope * size * batch
    return taken_after_first(replica, steps), integral


@jit
def taken_after_first(replica, steps):
    """Blocks that a stretch of so many steps takes after its first one."""
    m = ints(replica.p_m)
    size = replica.block_size
    rounds = (steps - 1) // size
    taken, phase = rounds * replica.decodes, (-(replica.steps + 1)) % size
    for _ in range(steps - 1 - rounds * size):
        taken += m[replica.at_phases + phase]
        phase = phase - 1 if phase else size - 1
    return taken


@jit
def taken_by_now(world, replica):
    """Blocks that the stretch under way has taken, and not accounted for."""
    m = ints(replica.p_m)
    if m[world.at_due + replica.index] == NEVER or replica.pending == 1:
        return 0
    steps = steps_by(replica, world.moment)
    if not steps:
        return 0
    ended = tick(replica.begin + duration(replica.spent, replica.slope, steps)) == world.moment
    return taken_after_first(replica, steps + (not ended))


@jit
def steps_by(replica, moment):
    """Steps of the stretch under way that have ended by a tick; the last one has not."""
    slope, half = replica.slope, replica.spent - 0.5 * replica.slope
    since = max(moment * 1e-9 - replica.begin, 0.0)
    root = math.sqrt(max(half * half + 2.0 * slope * since, 0.0))
    steps = max(min(int(2.0 * since / (half + root)), replica.pending - 1), 0)
    while (
        steps + 1 < replica.pending
        and tick(replica.begin + duration(replica.spent, slope, steps + 1)) <= moment
    ):
        steps += 1
    while steps and tick(replica.begin + duration(replica.spent, slope, steps)) > moment:
        steps -= 1
    return steps


@jit
def commit(world, replica, steps):
    """Account for the first steps of what is under way; those after the first take blocks."""
    m = ints(replica.p_m)
    spent = duration(replica.spent, replica.slope, steps)
    end = replica.begin + spent
    taken, integral = 0, 0.0
    if steps > 1:
        taken, integral = growth_after_first(replica, steps)
        replica.free -= taken
        replica.owned += taken
        if replica.idle:
            evict(replica)
    used = replica.used + taken
    if world.log > world.logged:
        add_to_log(world, replica, end, steps)
    replica.all_steps += steps
    replica.busy += spent
    replica.block_time += spent * replica.used + integral
    replica.running_time += spent * replica.running
    replica.prompt_tokens += replica.new
    replica.decode_tokens += replica.decodes * steps
    replica.peak_blocks = max(replica.peak_blocks, used)
    m[replica.at_row_steps + replica.rows] += steps
    m[replica.at_sequence_steps + replica.sequences] += steps
    replica.decode_attention += duration(replica.decode_time, replica.attention_slope, steps)
    replica.prefill_attention += replica.prefill_time
    world.swapped_blocks += replica.swaps
    world.finetune_tokens += replica.finetuned * steps
    if replica.chunks:
        replica.prompt_launches += 1
    if replica.decodes:
        replica.decode_launches += steps
        count_gaps(world, replica, steps)
        replica.steps += steps
        replica.late, replica.sync, replica.started = 0, end, 1


@jit
def add_to_log(world, replica, end, steps):
    """One more row of the log of steps."""
    log, row = reals(world.p_out_log), 7 * world.logged
    log[row], log[row + 1], log[row + 2] = replica.index, replica.begin, end
    log[row + 3], log[row + 4] = steps, replica.decodes
    log[row + 5], log[row + 6] = replica.new, replica.used
    world.logged += 1


@jit
def count_gaps(world, replica, steps):
    """Put the gaps between tokens into the histogram: each step's decodes count once."""
    calls = calls_at(replica.p_calls)
    m = ints(replica.p_m)
    x = reals(replica.p_x)
    at = 0
    row = world.at_histogram + ITL * BINS
    late = replica.late and (replica.late_odd or replica.late_since != replica.begin)
    if late or (replica.late < replica.decodes and replica.sync != replica.begin):
        # the first step ends waits of unlike length
        end, at = replica.begin + replica.spent, 1
        if replica.late < replica.decodes:
            usual = row + bin_at(end - replica.sync)
            for tenant in range(world.tenants):
                m[usual + tenant * world.histogram] += m[replica.at_tenants + tenant]
            for place in range(replica.late):
                call = calls[m[replica.at_late + place]]
                m[usual + call.tenant * world.histogram] -= 1
        for place in range(replica.late):
            call = calls[m[replica.at_late + place]]
            m[row + call.tenant * world.histogram + bin_at(end - call.last)] += 1
    first, slope = replica.spent, replica.slope
    last = first + slope * (steps - 1)
    while at < steps:
        time = first + slope * at
        found = replica.bin  # most often the same as the last time
        if not x[world.at_edges + found] <= time < x[world.at_edges + found + 1]:
            found = bin_at(time)
            replica.bin = found
        low, high, until = x[world.at_edges + found], x[world.at_edges + found + 1], steps
        if slope > 0.0 and last >= high:
            until = max(min(math.ceil((high - first) / slope), steps), at + 1)
        elif slope < 0.0 and last < low:
            until = max(min(int((low - first) / slope) + 1, steps), at + 1)
        for tenant in range(world.tenants):
            count = m[replica.at_tenants + tenant] * (until - at)
            m[row + tenant * world.histogram + found] += count
        at = until


# --- when something reaches the replica in the middle of a stretch --------------------------------


@jit
def pause(world, replica, end):
    """No step is under way; one that ended at this tick has."""
    m = ints(replica.p_m)
    replica.boundary, replica.ended = end, world.moment
    m[world.at_due + replica.index] = NEVER
    mark(world, replica)


@jit
def mark(world, replica):
    """Let the replica begin a step at the end of this tick, if it has none."""
    m = ints(replica.p_m)
    if not replica.dirty:
        replica.dirty = 1
        m[world.at_dirty + world.dirty] = replica.index
        world.dirty += 1


@jit
def cut(world, replica):
    """End the stretch with the step under way at this moment."""
    m = ints(replica.p_m)
    if m[world.at_due + replica.index] == NEVER or replica.pending == 1:
        return
    steps = steps_by(replica, world.moment)
    if steps:
        end = replica.begin + duration(replica.spent, replica.slope, steps)
        if tick(end) == world.moment:
            commit(world, replica, steps)
            pause(world, replica, end)
            return
    replica.pending = steps + 1
    replica.end = replica.begin + duration(replica.spent, replica.slope, steps + 1)
    m[world.at_due + replica.index] = tick(replica.end)


@jit
def catch_up(world, replica):
    """Bring a stretch to this moment, with the blocks of the step under way taken."""
    m = ints(replica.p_m)
    if m[world.at_due + replica.index] == NEVER or replica.pending == 1:
        return
    steps = steps_by(replica, world.moment)
    if not steps:
        return
    end = replica.begin + duration(replica.spent, replica.slope, steps)
    commit(world, replica, steps)
    if tick(end) == world.moment:
        pause(world, replica, end)
        return
    needed = m[replica.at_phases + (-replica.steps) % replica.block_size]
    replica.free -= needed
    replica.owned += needed
    if replica.idle:
        evict(replica)
    replica.begin = end
    replica.spent += replica.slope * steps
    replica.decode_time += replica.attention_slope * steps
    replica.pending -= steps
    replica.used = replica.blocks - replica.free
