"""Sums over images in native code: what `Statistics.add` does with numpy, to the same bits.

Images are taken some at a time, a row of an array for each quantity and a column for each image, so
that one instruction works on several of them.  An engine writes its times into the rows of starts
and ends; then `add_chunk` adds up.  Columns that hold no image are NaN, as is what never happened.
"""

import numpy as np

from simulator.native_code import Floats, Tables, Wholes, WholeTables, part

LANES = 8
WIDTH = 9 * LANES
"""Columns; an odd number of lanes: rows of 2**n bytes would share few lines of the cache."""

# What a kernel gets: numbers, arrays of floats and of whole numbers; an engine's own come after.
(DONE, STEPS, SINK, BOARDS, WAITS, DELAYS, REPLIES, QUANTITIES, KEEPS, OWN_NUMBERS) = range(10)
(ROWS, TOTALS, COUNTS, DUE, SORTING, LATENCIES, LAST, BEGAN_MS, ENDED_MS) = range(9)
(STARTS_MS, FREES_MS, ENDS_MS, SORTED, OWN_FLOATS) = range(9, 14)
(BEGINS, ITEMS, NEEDED, READY_AT, PAIRS, SEEN, BROUGHT, OWN_WHOLES) = range(8)

# Rows: one of each of these for a step, then those for the image, then those for a board.
STARTS, ENDS, FREES, READY, PATH, UNTIL, BY_STEP = range(7)
(BEGAN, ENDED, ZERO, LATENCY, LONGEST, REACHED, ORDER, FOUND, WAITED, LASTED, LATE) = range(11)
OF_IMAGE = 11
FIRST, FINISHED, QUEUED, CONCERNED, BUSY, OF_BOARD = range(6)

Span = tuple[int, int]
"""Rows of a step's times: whether it begins when it is ready, and the first row of ends."""

_NONE = np.nan


@part
def add_chunk(numbers: Wholes, floats: Tables, wholes: WholeTables, first: int, count: int) -> None:
    """Add the images of `count` columns from `first` on."""
    rows, steps = floats[ROWS], numbers[STEPS]
    if count < WIDTH:
        _forget(rows, BY_STEP * steps, READY * steps, first, first + count)
    last = floats[LAST]
    last[0] = max(last[0], _last(numbers, rows, floats[DUE]))
    image = BY_STEP * steps
    latency, ended, began = (image + LATENCY) * WIDTH, (image + ENDED) * WIDTH, image * WIDTH
    for j in range(WIDTH):
        rows[latency + j] = rows[ended + j] - rows[began + j]
    _find_ready(numbers, floats, wholes)
    _find_boards(numbers, floats, wholes)
    for at in range(numbers[QUANTITIES]):
        one, other = wholes[PAIRS][2 * at], wholes[PAIRS][2 * at + 1]
        _sum(rows, one, other, floats[TOTALS], at)
        _count(rows, one, other, floats[COUNTS], at)
    _add_paths(numbers, floats, wholes)
    if numbers[REPLIES] and not numbers[WAITS]:
        _survive(numbers, rows, wholes)
        _bring(numbers, rows, wholes, first, count)
    for place in range(count):
        floats[LATENCIES][numbers[DONE] + place] = rows[latency + first + place]
    if numbers[KEEPS]:
        _keep(numbers, floats, first, count)
    numbers[DONE] += count


@part
def _keep(numbers: Wholes, floats: Tables, first: int, count: int) -> None:
    """Write all times of the images into the matrices of a recording."""
    rows, steps, done = floats[ROWS], numbers[STEPS], numbers[DONE]
    starts, frees, ends = floats[STARTS_MS], floats[FREES_MS], floats[ENDS_MS]
    began, ended = BY_STEP * steps + BEGAN, BY_STEP * steps + ENDED
    for place in range(count):
        j, at = first + place, (done + place) * steps
        floats[BEGAN_MS][done + place] = rows[began * WIDTH + j]
        floats[ENDED_MS][done + place] = rows[ended * WIDTH + j]
        for step in range(steps):
            starts[at + step] = rows[(STARTS * steps + step) * WIDTH + j]
            ends[at + step] = rows[(ENDS * steps + step) * WIDTH + j]
        if numbers[DELAYS]:
            for step in range(steps):
                frees[at + step] = rows[(FREES * steps + step) * WIDTH + j]


@part
def _bring(numbers: Wholes, rows: Floats, wholes: WholeTables, first: int, count: int) -> None:
    """Note which replies are in the answers."""
    replies, lists, done = numbers[REPLIES], 2 * numbers[STEPS] + 4 * numbers[BOARDS], numbers[DONE]
    for number in range(replies):
        step = wholes[ITEMS][wholes[BEGINS][lists] + number]
        row = (PATH * numbers[STEPS] + step) * WIDTH + first
        for place in range(count):
            wholes[BROUGHT][(done + place) * replies + number] = rows[row + place] > 0.0


@part
def _forget(rows: Floats, image: int, times: int, first: int, end: int) -> None:
    """Let the columns before `first` and from `end` on be of no image."""
    for row in range(times + 2):
        at = (row if row < times else image + BEGAN + row - times) * WIDTH
        for j in range(first):
            rows[at + j] = _NONE
        for j in range(end, WIDTH):
            rows[at + j] = _NONE


@part
def _last(numbers: Wholes, rows: Floats, due: Floats) -> float:
    """Time at which the last step ended, or a lost image was given up."""
    steps, lost, last, image = numbers[STEPS], 0, 0.0, BY_STEP * numbers[STEPS]
    began, ended, reached = image * WIDTH, (image + ENDED) * WIDTH, (image + REACHED) * WIDTH
    for j in range(WIDTH):
        lost += rows[ended + j] != rows[ended + j]
    if numbers[WAITS] and not lost:
        for j in range(WIDTH):
            last = max(last, rows[ended + j])
        return last
    for j in range(WIDTH):
        rows[reached + j] = 0.0
    longest = 0.0
    for step in range(steps):
        longest = due[step] if due[step] > longest else longest
        for j in range(WIDTH):
            time, before = rows[(ENDS * steps + step) * WIDTH + j], rows[reached + j]
            rows[reached + j] = time if time > before else before
    for j in range(WIDTH):
        given_up = rows[began + j] + (longest if rows[ended + j] != rows[ended + j] else 0.0)
        last = max(last, rows[reached + j])
        last = given_up if given_up > last else last
    return last


@part
def _find_ready(numbers: Wholes, floats: Tables, wholes: WholeTables) -> None:
    """Find when each step was ready, if it waits for several."""
    steps, rows, begins, items = numbers[STEPS], floats[ROWS], wholes[BEGINS], wholes[ITEMS]
    for step in range(steps):
        begin, end, needed = begins[step], begins[step + 1], wholes[NEEDED][step]
        ready = (READY * steps + step) * WIDTH
        if wholes[READY_AT][step] != READY * steps + step:
            continue
        if needed == end - begin:
            for place in range(begin, end):
                ends = (ENDS * steps + items[place]) * WIDTH
                for j in range(WIDTH):
                    time, latest = rows[ends + j], rows[ready + j]
                    kept = (place > begin) & ((time <= latest) | (latest != latest))
                    rows[ready + j] = latest if kept else time
        else:
            for j in range(WIDTH):
                rows[ready + j] = _nth(items, begin, end, floats, ENDS * steps, j, needed)
        if floats[DUE][step] == floats[DUE][step]:
            began = (BY_STEP * steps + BEGAN) * WIDTH
            for j in range(WIDTH):
                latest = rows[began + j] + floats[DUE][step]
                rows[ready + j] = rows[ready + j] if rows[ready + j] <= latest else latest


@part
def _nth(
    items: Wholes, begin: int, end: int, floats: Tables, ends: int, j: int, needed: int
) -> float:
    """Time at which `needed` have ended; NaN if so many never did."""
    rows, sorting, count = floats[ROWS], floats[SORTING], 0
    for place in range(begin, end):
        ended = rows[(ends + items[place]) * WIDTH + j]
        if ended == ended:
            at = count
            while at and sorting[at - 1] > ended:
                sorting[at] = sorting[at - 1]
                at -= 1
            sorting[at] = ended
            count += 1
    return sorting[needed - 1] if needed <= count else _NONE


@part
def _sum(rows: Floats, one: int, other: int, totals: Floats, at: int) -> None:
    """Add the differences of two rows to their lanes, which are registers."""
    a, b, c, d = totals[8 * at], totals[8 * at + 1], totals[8 * at + 2], totals[8 * at + 3]
    e, f, g, h = totals[8 * at + 4], totals[8 * at + 5], totals[8 * at + 6], totals[8 * at + 7]
    for place in range(WIDTH // LANES):
        p, q = one * WIDTH + LANES * place, other * WIDTH + LANES * place
        i, j, k = rows[p] - rows[q], rows[p + 1] - rows[q + 1], rows[p + 2] - rows[q + 2]
        m, w, x = rows[p + 3] - rows[q + 3], rows[p + 4] - rows[q + 4], rows[p + 5] - rows[q + 5]
        y, z = rows[p + 6] - rows[q + 6], rows[p + 7] - rows[q + 7]
        a += i if i == i else 0.0
        b += j if j == j else 0.0
        c += k if k == k else 0.0
        d += m if m == m else 0.0
        e += w if w == w else 0.0
        f += x if x == x else 0.0
        g += y if y == y else 0.0
        h += z if z == z else 0.0
    totals[8 * at], totals[8 * at + 1], totals[8 * at + 2], totals[8 * at + 3] = a, b, c, d
    totals[8 * at + 4], totals[8 * at + 5], totals[8 * at + 6], totals[8 * at + 7] = e, f, g, h


@part
def _count(rows: Floats, one: int, other: int, counts: Floats, at: int) -> None:
    """Count the differences of two rows that are there."""
    count = 0
    for j in range(WIDTH):
        value = rows[one * WIDTH + j] - rows[other * WIDTH + j]
        count += value == value
    counts[LANES * at] += count


@part
def _find_boards(numbers: Wholes, floats: Tables, wholes: WholeTables) -> None:
    """Find what concerns each board, and the longest time that one computed."""
    rows, steps, boards, waits = floats[ROWS], numbers[STEPS], numbers[BOARDS], numbers[WAITS]
    image, lists = BY_STEP * steps, 2 * steps
    longest, latency = (image + LONGEST) * WIDTH, (image + LATENCY) * WIDTH
    freed, ended = (FREES if numbers[DELAYS] else ENDS) * steps, ENDS * steps
    for j in range(WIDTH):
        rows[longest + j] = 0.0
    for board in range(boards):
        at = image + OF_IMAGE + OF_BOARD * board
        _union(numbers, floats, wholes, lists + board, (0, freed), at + BUSY)
        busy, until = (at + BUSY) * WIDTH, ended
        if not waits:  # what goes on after the answer made nobody wait
            _cut(rows, wholes, lists + board, freed, UNTIL * steps, image + ENDED)
            _union(numbers, floats, wholes, lists + board, (0, UNTIL * steps), image + FOUND)
            busy, until = (image + FOUND) * WIDTH, UNTIL * steps
            _cut(rows, wholes, lists + 2 * boards + board, ended, until, image + ENDED)
        for j in range(WIDTH):
            one, before = rows[busy + j], rows[longest + j]
            rows[longest + j] = one if one > before else before
        _union(numbers, floats, wholes, lists + 2 * boards + board, (1, until), at + CONCERNED)
        _find_queue(numbers, rows, wholes, lists + boards + board, at + QUEUED)
        _find_end(numbers, rows, wholes, lists + 2 * boards + board, at + FINISHED, 1.0)
        _find_end(numbers, rows, wholes, lists + 3 * boards + board, at + FIRST, -1.0)
    for j in range(WIDTH):
        answered = rows[latency + j] == rows[latency + j]
        rows[longest + j] = rows[longest + j] if answered else _NONE


@part
def _find_queue(numbers: Wholes, rows: Floats, wholes: WholeTables, number: int, row: int) -> None:
    """Find how long a board's steps queued."""
    began, found = (BY_STEP * numbers[STEPS] + BEGAN) * WIDTH, row * WIDTH
    for j in range(WIDTH):
        rows[found + j] = 0.0 if rows[began + j] == rows[began + j] else _NONE
    for place in range(wholes[BEGINS][number], wholes[BEGINS][number + 1]):
        step = wholes[ITEMS][place]
        start, ready = step * WIDTH, wholes[READY_AT][step] * WIDTH
        for j in range(WIDTH):
            waited = rows[start + j] - rows[ready + j]
            rows[found + j] += waited if waited == waited else 0.0


@part
def _find_end(
    numbers: Wholes, rows: Floats, wholes: WholeTables, number: int, row: int, sign: float
) -> None:
    """Find the last end of several steps; with a negative sign the first."""
    begin, end, found = wholes[BEGINS][number], wholes[BEGINS][number + 1], row * WIDTH
    if end - begin == 1:
        return
    for j in range(WIDTH):
        rows[found + j] = _NONE
    for place in range(begin, end):
        ends = (ENDS * numbers[STEPS] + wholes[ITEMS][place]) * WIDTH
        for j in range(WIDTH):
            one, time = rows[found + j], rows[ends + j]
            rows[found + j] = one if (sign * one >= sign * time) | (time != time) else time


@part
def _cut(rows: Floats, wholes: WholeTables, number: int, kind: int, until: int, ended: int) -> None:
    """Times of these steps, what is after the image's end cut off."""
    for place in range(wholes[BEGINS][number], wholes[BEGINS][number + 1]):
        one = (kind + wholes[ITEMS][place]) * WIDTH
        other = (until + wholes[ITEMS][place]) * WIDTH
        for j in range(WIDTH):
            time, end = rows[one + j], rows[ended * WIDTH + j]
            rows[other + j] = time if (time <= end) | (end != end) else end


@part
def _union(
    numbers: Wholes, floats: Tables, wholes: WholeTables, number: int, times: Span, row: int
) -> None:
    """Time in which at least one of the steps lasts, as `union_ms` finds it."""
    rows, image, (by_ready, last) = floats[ROWS], BY_STEP * numbers[STEPS], times
    begin, end, found = wholes[BEGINS][number], wholes[BEGINS][number + 1], row * WIDTH
    reached, order = (image + REACHED) * WIDTH, (image + ORDER) * WIDTH
    for j in range(WIDTH):
        rows[found + j], rows[reached + j] = 0.0, -np.inf
        rows[order + j] = 1.0 if begin < end else 0.0
    before = -1
    for place in range(begin, end):
        step = wholes[ITEMS][place]
        one, other = (wholes[READY_AT][step] if by_ready else step) * WIDTH, (last + step) * WIDTH
        before = one if before < 0 else before
        for j in range(WIDTH):
            begun, ended, until = rows[one + j], rows[other + j], rows[reached + j]
            more = ended - (begun if begun > until else until)
            rows[found + j] += more if more > 0.0 else 0.0
            rows[reached + j] = ended if ended > until else until
            fine = (rows[before + j] <= begun) & (ended == ended)
            rows[order + j] = rows[order + j] if fine else 0.0
        before = one
    wrong = 0
    for j in range(WIDTH):
        wrong += rows[order + j] == 0.0
    if wrong:
        for j in range(WIDTH):
            if rows[order + j] == 0.0:
                rows[found + j] = _sorted_union(floats, wholes, begin, end, times, j)


@part
def _sorted_union(
    floats: Tables, wholes: WholeTables, begin: int, end: int, times: Span, j: int
) -> float:
    """The same of one image, whose steps are there or not, in any order."""
    rows, starts, ends, (by_ready, last) = floats[ROWS], floats[SORTING], floats[SORTED], times
    count = 0
    for place in range(begin, end):
        step = wholes[ITEMS][place]
        start = rows[(wholes[READY_AT][step] if by_ready else step) * WIDTH + j]
        until = rows[(last + step) * WIDTH + j]
        if start == start and until == until:
            at = count
            while at and starts[at - 1] > start:
                starts[at], ends[at] = starts[at - 1], ends[at - 1]
                at -= 1
            starts[at], ends[at] = start, until
            count += 1
    covered, until = 0.0, -np.inf
    for at in range(count):
        covered += max(ends[at] - max(starts[at], until), 0.0)
        until = max(until, ends[at])
    return covered if count else _NONE


@part
def _add_paths(numbers: Wholes, floats: Tables, wholes: WholeTables) -> None:
    """Go back from the answers, as `critical_path` does; a row says which images come by."""
    rows, steps, sink, seen = floats[ROWS], numbers[STEPS], numbers[SINK], wholes[SEEN]
    image, came = BY_STEP * steps, 0
    for step in range(steps):
        seen[step] = 0
    here, latency = (PATH * steps + sink) * WIDTH, (image + LATENCY) * WIDTH
    for j in range(WIDTH):
        answered = rows[latency + j] == rows[latency + j]
        rows[here + j] = 1.0 if answered else 0.0
        came += answered
    seen[sink] = came
    for step in range(sink, -1, -1):
        if seen[step]:
            _add_turn(numbers, floats, wholes, step)
            for kind in range(3):
                at = numbers[QUANTITIES] + kind * steps + step
                _sum(rows, image + WAITED + kind, image + ZERO, floats[TOTALS], at)


@part
def _add_turn(numbers: Wholes, floats: Tables, wholes: WholeTables, step: int) -> None:
    """Find waits and time of a step on the way, and who was before it."""
    rows, steps, begins = floats[ROWS], numbers[STEPS], wholes[BEGINS]
    here, ready = (PATH * steps + step) * WIDTH, wholes[READY_AT][step] * WIDTH
    start, end, began = step * WIDTH, (ENDS * steps + step) * WIDTH, BY_STEP * steps * WIDTH
    waited = (BY_STEP * steps + WAITED) * WIDTH
    lasted, late = waited + WIDTH, waited + 2 * WIDTH
    for j in range(WIDTH):
        there = rows[here + j] > 0.0
        rows[waited + j] = rows[start + j] - rows[ready + j] if there else 0.0
        rows[lasted + j] = rows[end + j] - rows[start + j] if there else 0.0
    for place in range(begins[step], begins[step + 1]):
        earlier = wholes[ITEMS][place]
        before, ended = (PATH * steps + earlier) * WIDTH, (ENDS * steps + earlier) * WIDTH
        known, came = 1.0 if wholes[SEEN][earlier] else 0.0, 0
        for j in range(WIDTH):
            last = (rows[here + j] > 0.0) & (rows[ended + j] == rows[ready + j])
            was = rows[before + j] if known > 0.0 else 0.0
            rows[before + j] = 1.0 if last else was
            rows[here + j] = 0.0 if last else rows[here + j]
            came += last
        wholes[SEEN][earlier] += came
    for j in range(WIDTH):
        since = rows[ready + j] - rows[began + j]
        rows[late + j] = since if rows[here + j] > 0.0 else 0.0


@part
def _survive(numbers: Wholes, rows: Floats, wholes: WholeTables) -> None:
    """Find the steps whose ends are in the answer, as `survivors` does; 1 if so."""
    steps, sink, begins = numbers[STEPS], numbers[SINK], wholes[BEGINS]
    ended = (BY_STEP * steps + ENDED) * WIDTH
    for step in range(steps - 1, -1, -1):
        used, ends = (PATH * steps + step) * WIDTH, (ENDS * steps + step) * WIDTH
        for j in range(WIDTH):
            there = (step == sink) & (rows[ended + j] == rows[ended + j])
            rows[used + j] = 1.0 if there else 0.0
        for place in range(begins[steps + step], begins[steps + step + 1] if step < sink else 0):
            follower = wholes[ITEMS][place]
            later, ready = (PATH * steps + follower) * WIDTH, wholes[READY_AT][follower] * WIDTH
            for j in range(WIDTH):
                in_time = rows[later + j] if rows[ends + j] <= rows[ready + j] else 0.0
                rows[used + j] = in_time if in_time > rows[used + j] else rows[used + j]
