"""Sums over images in compiled code: what `Statistics.add` does with numpy, to the same bits.

Images are taken some at a time, a row of an array for each quantity and a column for each image,
so that one instruction works on several of them.  No fast-math: nothing is fused or reordered.

This module loads numba and is itself loaded only where a long run pays for it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from simulator.results.statistics import LANES, BoardStatistics

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}  # nothing is allocated

_INSIDE: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
part: Any = njit(**_OPTIONS, **_INSIDE)
"""Decorator of a function that only compiled code calls."""


def kept_on_disk(function: Callable[..., Any]) -> Any:
    """Function compiled when first called; kept on disk where there is a place for it."""
    return njit(cache=IS_KEPT, **_OPTIONS)(function)


def _has_place() -> bool:
    """Whether numba finds a folder that it may write to."""
    try:
        njit(cache=True)(_has_place)
    except RuntimeError:
        return False
    return True


IS_KEPT = _has_place()
"""Whether compiled code is kept on disk, for processes to come."""

# What is compiled is found again on disk until this file changes: so it takes no constant from
# another file.
_LANES = 8
WIDTH = 17 * _LANES  # odd: rows of 2**n bytes would share few lines of the cache
_OF_BOARD = 5
_SENT, _BUSY, _DONE, _QUEUED, _WAITED = range(_OF_BOARD)
_NONE = np.nan
if (LANES, len(BoardStatistics.QUANTITIES)) != (_LANES, _OF_BOARD):
    raise AssertionError("compiled sums and those of numpy have different layouts")

# Rows: one of each of these for a step, then those for the image, then one for each quantity.
_STARTS, _ENDS, _FREES, _READY, _QUEUE, _UNTIL, _USED, _PATH = range(8)
_BEGAN, _ENDED, _FOUND, _LAST, _LONGEST, _LATENCY, QUANTITIES = range(7)
BY_STEP = 8


@kept_on_disk
def add_images(begins, items, needed, due, form, image_ms, times, scratch, lane, sums, found):  # type: ignore[no-untyped-def]
    """Add all images; return the time until which something went on."""
    (sink, boards, waits_for_all, delays), (rows, sorting) = form, scratch
    (totals, counts), (latencies, brought) = sums, found
    steps, last, done = len(needed), 0.0, 0
    quantities = len(totals) - 3 * steps
    while done < len(latencies):
        count = min(rows.shape[1] - lane, len(latencies) - done)
        if count < rows.shape[1]:
            _forget(rows, steps)
        _load(image_ms, times, done, lane, count, rows, steps, delays)
        last = max(last, _last(rows, steps, due))
        _ready(begins, items, needed, due, rows, sorting)
        _find_boards(begins, items, rows, steps, boards, waits_for_all, sorting, delays)
        _find_rest(rows, steps, delays, _OF_BOARD * boards)
        for quantity in range(quantities):
            _sum(rows, BY_STEP * steps + QUANTITIES + quantity, totals, counts, quantity)
        _add_paths(begins, items, rows, steps, sink, sums, quantities)
        if brought.shape[1] and not waits_for_all:
            _survive(begins, items, rows, steps, sink)
            _bring(items, rows, _USED * steps, done, lane, count, brought)
        for place in range(count):
            latencies[done + place] = rows[BY_STEP * steps + _LATENCY, lane + place]
        done += count
        lane = 0
    return last


@part
def _load(image_ms, times, done, lane, count, rows, steps, delays):  # type: ignore[no-untyped-def]
    """Copy images into their columns."""
    image, (start, end), (starts, frees, ends) = BY_STEP * steps, image_ms, times
    for place in range(count):
        row, j = done + place, lane + place
        rows[image + _BEGAN, j], rows[image + _ENDED, j] = start[row], end[row]
        for step in range(steps):
            rows[_STARTS * steps + step, j] = starts[row, step]
            rows[_ENDS * steps + step, j] = ends[row, step]
        if delays:
            for step in range(steps):
                rows[_FREES * steps + step, j] = frees[row, step]


@part
def _bring(items, rows, used, done, lane, count, brought):  # type: ignore[no-untyped-def]
    """Note which replies are in the answers."""
    replies = brought.shape[1]
    for number in range(replies):
        row = used + items[len(items) - replies + number]
        for place in range(count):
            brought[done + place, number] = rows[row, lane + place] > 0.0


@part
def _forget(rows, steps):  # type: ignore[no-untyped-def]
    """Let the columns be of no image."""
    for row in range(_READY * steps):
        for j in range(rows.shape[1]):
            rows[row, j] = _NONE
    for row in range(BY_STEP * steps + _BEGAN, BY_STEP * steps + _ENDED + 1):
        for j in range(rows.shape[1]):
            rows[row, j] = _NONE


@part
def _last(rows, steps, due):  # type: ignore[no-untyped-def]
    """Time at which the last step ended, or a lost image was given up."""
    image, latest, longest = BY_STEP * steps, BY_STEP * steps + _LAST, 0.0
    for j in range(rows.shape[1]):
        rows[latest, j] = 0.0
    for step in range(steps):
        longest = due[step] if due[step] > longest else longest
        for j in range(rows.shape[1]):
            ended = rows[_ENDS * steps + step, j]
            rows[latest, j] = ended if ended > rows[latest, j] else rows[latest, j]
    last = 0.0
    for j in range(rows.shape[1]):
        lost = rows[image + _ENDED, j] != rows[image + _ENDED, j]
        given_up = rows[image + _BEGAN, j] + (longest if lost else 0.0)
        last = max(last, rows[latest, j])
        last = given_up if given_up > last else last
    return last


@part
def _ready(begins, items, needed, due, rows, sorting):  # type: ignore[no-untyped-def]
    """Find when each step was ready, and how long it queued."""
    steps = len(needed)
    image = BY_STEP * steps
    for step in range(steps):
        begin, end, ready = begins[step], begins[step + 1], _READY * steps + step
        if needed[step] == end - begin:
            first = image + _BEGAN if begin == end else _ENDS * steps + items[begin]
            for j in range(rows.shape[1]):
                rows[ready, j] = rows[first, j]
            for place in range(begin + 1, end):
                _later(rows, _ENDS * steps + items[place], ready)
        else:
            for j in range(rows.shape[1]):
                rows[ready, j] = _nth(items, begin, end, rows, steps, j, needed[step], sorting)
        if due[step] == due[step]:
            for j in range(rows.shape[1]):
                latest = rows[image + _BEGAN, j] + due[step]
                rows[ready, j] = rows[ready, j] if rows[ready, j] <= latest else latest
        for j in range(rows.shape[1]):
            waited = rows[_STARTS * steps + step, j] - rows[ready, j]
            rows[_QUEUE * steps + step, j] = waited if waited == waited else 0.0


@part
def _later(rows, one, found):  # type: ignore[no-untyped-def]
    for j in range(rows.shape[1]):
        time, latest = rows[one, j], rows[found, j]
        rows[found, j] = latest if (time <= latest) | (latest != latest) else time


@part
def _nth(items, begin, end, rows, steps, j, needed, sorting):  # type: ignore[no-untyped-def]
    """Time at which `needed` have ended; NaN if so many never did."""
    count = 0
    for place in range(begin, end):
        ended = rows[_ENDS * steps + items[place], j]
        if ended == ended:
            at = count
            while at and sorting[0, at - 1] > ended:
                sorting[0, at] = sorting[0, at - 1]
                at -= 1
            sorting[0, at] = ended
            count += 1
    return sorting[0, needed - 1] if needed <= count else _NONE


@part
def _sum(rows, row, totals, counts, at):  # type: ignore[no-untyped-def]
    """Add the values that are there, each to its lane."""
    width, count = rows.shape[1], 0
    for j in range(width):
        value = rows[row, j]
        count += value == value
        rows[row, j] = value if value == value else 0.0
    for j in range(_LANES):
        rows[row, j] += totals[at, j]
    for j in range(_LANES, width):
        rows[row, j] += rows[row, j - _LANES]
    for j in range(_LANES):
        totals[at, j] = rows[row, width - _LANES + j]
    counts[at, 0] += count


@part
def _find_boards(  # type: ignore[no-untyped-def]
    begins, items, rows, steps, boards, waits_for_all, sorting, delays
):
    """Find what concerns each board, and the longest time that one computed."""
    image, lists, freed = BY_STEP * steps, 2 * steps, _FREES if delays else _ENDS
    for j in range(rows.shape[1]):
        rows[image + _LONGEST, j] = 0.0
    for board in range(boards):
        at = image + QUANTITIES + _OF_BOARD * board
        for kind in range(3):  # computing; until the answer; concerned until the answer
            number = lists + board + (2 * boards if kind == 2 else 0)
            first, last = _READY if kind == 2 else _STARTS, _ENDS if kind == 2 else freed
            found = at + _WAITED if kind == 2 else at + _BUSY if kind == 0 else image + _FOUND
            begin, end = begins[number], begins[number + 1]
            if kind and not waits_for_all:
                _cut(items, begin, end, rows, steps, last, image + _ENDED)
                last = _UNTIL
            if kind != 1 or not waits_for_all:
                _union(items, begin, end, rows, first * steps, last * steps, sorting, found)
            if kind == (0 if waits_for_all else 1):
                for j in range(rows.shape[1]):
                    one, longest = rows[found, j], rows[image + _LONGEST, j]
                    rows[image + _LONGEST, j] = one if one > longest else longest
        for j in range(rows.shape[1]):
            lasted = rows[image + _ENDED, j] - rows[image + _BEGAN, j]
            rows[at + _WAITED, j] = lasted - rows[at + _WAITED, j]
        _find_queue(items, begins, lists + boards + board, rows, steps, at + _QUEUED)
        for kind in range(2):
            number, found = lists + (2 + kind) * boards + board, at + (_SENT if kind else _DONE)
            _find_end(items, begins, number, rows, steps, found, -1.0 if kind else 1.0)


@part
def _find_queue(items, begins, number, rows, steps, found):  # type: ignore[no-untyped-def]
    """Find how long a board's steps queued."""
    began = BY_STEP * steps + _BEGAN
    for j in range(rows.shape[1]):
        rows[found, j] = 0.0 if rows[began, j] == rows[began, j] else _NONE
    for place in range(begins[number], begins[number + 1]):
        for j in range(rows.shape[1]):
            rows[found, j] += rows[_QUEUE * steps + items[place], j]


@part
def _find_end(items, begins, number, rows, steps, found, sign):  # type: ignore[no-untyped-def]
    """Find the last end of a board's steps, or with a negative sign the first."""
    began = BY_STEP * steps + _BEGAN
    for j in range(rows.shape[1]):
        rows[found, j] = _NONE
    for place in range(begins[number], begins[number + 1]):
        ends = _ENDS * steps + items[place]
        for j in range(rows.shape[1]):
            one, end = rows[found, j], rows[ends, j]
            rows[found, j] = one if (sign * one >= sign * end) | (end != end) else end
    for j in range(rows.shape[1]):
        rows[found, j] -= rows[began, j]


@part
def _cut(items, begin, end, rows, steps, kind, ended):  # type: ignore[no-untyped-def]
    """Times of these steps, what is after the image's end cut off."""
    for place in range(begin, end):
        one, until = kind * steps + items[place], _UNTIL * steps + items[place]
        for j in range(rows.shape[1]):
            time, end = rows[one, j], rows[ended, j]
            rows[until, j] = time if (time <= end) | (end != end) else end


@part
def _union(items, begin, end, rows, first, last, sorting, found):  # type: ignore[no-untyped-def]
    """Time in which at least one of the steps lasts, as `union_ms` finds it."""
    if not _in_order(items, begin, end, rows, first, last):
        for j in range(rows.shape[1]):
            rows[found, j] = _sorted_union(items, begin, end, rows, first, last, sorting, j)
        return
    until = len(rows) - 1
    for j in range(rows.shape[1]):
        rows[found, j], rows[until, j] = 0.0, -np.inf
    for place in range(begin, end):
        one, other = first + items[place], last + items[place]
        for j in range(rows.shape[1]):
            begun, ended, reached = rows[one, j], rows[other, j], rows[until, j]
            more = ended - (begun if begun > reached else reached)
            rows[found, j] += more if more > 0.0 else 0.0
            rows[until, j] = ended if ended > reached else reached


@part
def _in_order(items, begin, end, rows, first, last):  # type: ignore[no-untyped-def]
    """Whether the steps begin one after the other."""
    wrong = begin == end
    for place in range(begin, end):
        one, other = first + items[place], last + items[place]
        before, worse = first + items[max(begin, place - 1)], 0
        for j in range(rows.shape[1]):
            worse += (rows[before, j] <= rows[one, j]) & (rows[other, j] == rows[other, j])
        wrong |= worse < rows.shape[1]
    return not wrong


@part
def _sorted_union(items, begin, end, rows, first, last, sorting, j):  # type: ignore[no-untyped-def]
    count = 0
    for place in range(begin, end):
        starts, ends = rows[first + items[place], j], rows[last + items[place], j]
        if starts == starts and ends == ends:
            at = count
            while at and sorting[0, at - 1] > starts:
                sorting[0, at], sorting[1, at] = sorting[0, at - 1], sorting[1, at - 1]
                at -= 1
            sorting[0, at], sorting[1, at] = starts, ends
            count += 1
    covered, until = 0.0, -np.inf
    for at in range(count):
        covered += max(sorting[1, at] - max(sorting[0, at], until), 0.0)
        until = max(until, sorting[1, at])
    return covered if count else _NONE


@part
def _find_rest(rows, steps, delays, at):  # type: ignore[no-untyped-def]
    """Find the latency, the longest time that a board computed, and what each step held."""
    image, freed = BY_STEP * steps, (_FREES if delays else _ENDS) * steps
    latency = image + QUANTITIES + at
    for j in range(rows.shape[1]):
        rows[image + _LATENCY, j] = rows[image + _ENDED, j] - rows[image + _BEGAN, j]
        rows[latency, j] = rows[image + _LATENCY, j]
        longest = rows[image + _LONGEST, j]
        rows[latency + 1, j] = longest if rows[latency, j] == rows[latency, j] else _NONE
    for step in range(steps):
        for j in range(rows.shape[1]):
            rows[latency + 2 + step, j] = rows[freed + step, j] - rows[_STARTS * steps + step, j]


@part
def _add_paths(begins, items, rows, steps, sink, sums, at):  # type: ignore[no-untyped-def]
    """Go back from the answers, as `critical_path` does; a row says which images come by."""
    image, (totals, counts) = BY_STEP * steps, sums
    for step in range(sink + 1):
        for j in range(rows.shape[1]):
            rows[_PATH * steps + step, j] = 0.0
    for j in range(rows.shape[1]):
        answered = rows[image + _ENDED, j] == rows[image + _ENDED, j]
        rows[_PATH * steps + sink, j] = 1.0 if answered else 0.0
    for step in range(sink, -1, -1):
        here, came = _PATH * steps + step, 0
        for j in range(rows.shape[1]):
            came += rows[here, j] > 0.0
        if came:
            _add_turn(begins, items, rows, steps, step)
            for kind in range(3):
                _sum(rows, len(rows) - 4 + kind, totals, counts, at + kind * steps + step)


@part
def _add_turn(begins, items, rows, steps, step):  # type: ignore[no-untyped-def]
    """Find waits and time of a step on the way, and who was before it."""
    image, here, ready = BY_STEP * steps, _PATH * steps + step, _READY * steps + step
    started, ended, wait = _STARTS * steps + step, _ENDS * steps + step, len(rows) - 4
    began = image + _BEGAN if begins[step] < begins[step + 1] else ready
    for j in range(rows.shape[1]):
        there = rows[here, j] > 0.0
        waited, lasted = rows[started, j] - rows[ready, j], rows[ended, j] - rows[started, j]
        rows[wait, j] = waited if there else 0.0
        rows[wait + 1, j] = lasted if there else 0.0
    for place in range(begins[step], begins[step + 1]):
        before, earlier = _PATH * steps + items[place], _ENDS * steps + items[place]
        for j in range(rows.shape[1]):
            last = (rows[here, j] > 0.0) & (rows[earlier, j] == rows[ready, j])
            was, is_here = rows[before, j], rows[here, j]
            rows[before, j] = 1.0 if last else was
            rows[here, j] = 0.0 if last else is_here
    for j in range(rows.shape[1]):
        since, is_here = rows[ready, j] - rows[began, j], rows[here, j]
        rows[wait + 2, j] = since if is_here > 0.0 else 0.0


@part
def _survive(begins, items, rows, steps, sink):  # type: ignore[no-untyped-def]
    """Find the steps whose ends are in the answer, as `survivors` does; 1 if so."""
    ended = BY_STEP * steps + _ENDED
    for step in range(steps - 1, -1, -1):
        used, ends = _USED * steps + step, _ENDS * steps + step
        for j in range(rows.shape[1]):
            there = (step == sink) & (rows[ended, j] == rows[ended, j])
            rows[used, j] = 1.0 if there else 0.0
        if step >= sink:
            continue
        for place in range(begins[steps + step], begins[steps + step + 1]):
            follower, ready = _USED * steps + items[place], _READY * steps + items[place]
            for j in range(rows.shape[1]):
                in_time = rows[follower, j] if rows[ends, j] <= rows[ready, j] else 0.0
                rows[used, j] = in_time if in_time > rows[used, j] else rows[used, j]
