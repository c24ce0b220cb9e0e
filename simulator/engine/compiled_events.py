"""The event loop in native code: what `EventSimulation` does, to the same bits.

Events wait in a heap.  An image under way has cells: one for each step, and one for itself.  Random
numbers, arrivals and down times are drawn by numpy, ahead of the clock; the kernel returns where
something runs out or a block is full, and goes on where it was.
"""

import numpy as np

from simulator.native_code import Kernel, Tables, Wholes, WholeTables, flat_lists, part, pop, push
from simulator.results import image_sums as sums
from simulator.results.image_sums import BEGINS, ITEMS, NEEDED, OWN_NUMBERS, STEPS, WIDTH, add_chunk
from simulator.scenario import FailureTimes, Scenario
from simulator.task_graph import TaskGraph

# What the kernel gets beside what sums need.
(EVENT, IMAGES, LOSES, CLOSED, ROOTS, HEAP, BEGUN, SLOTS, BREAKS, STATUS, ROOM, FIRST, FILLED) = (
    range(OWN_NUMBERS, OWN_NUMBERS + 13)
)
(SPARE, SAMPLES, ARRIVED, COMES) = range(OWN_NUMBERS + 13, OWN_NUMBERS + 17)
(AT, CELLS, TIMES, FREE, CAME, DRAWS, DOWNS, UPS, QUIET, NOW, BROKEN, CAN) = range(
    sums.OWN_FLOATS, sums.OWN_FLOATS + 12
)
(KEY, CODE, WAITING, STACK, PLAN, LISTS, MEMBERS, FAILURES, TAKEN, INFERENCES) = range(
    sums.OWN_WHOLES, sums.OWN_WHOLES + 10
)
# Columns of cells (times, then what is counted, of a step or an image), plan and failures.
START, FREED, END, REPAIR, HOLD, DELAY, OF_CELL = range(7)
(MISSING, TRIES), (NUMBER, UNDER_WAY, SETTLED), OF_WAIT = range(2), range(3), 3
NEXT, WHERE, STAYS, RANDOM, OF_PLAN = range(5)
FROM, KNOWN, CURSOR, RENEWS, OF_FAILURE = range(5)
CLOCK, COMING, HORIZON, SAFE = range(4)
TAKE_UP, ENDED, DUE, GONE, AGAIN, KINDS = range(6)
GOES_ON, WANTS, GIVES_UP = range(3)
MOST_TRIES, MOST_BREAKS = 1000, 4096
"""Tries of a step, and broken ones of an event, that are left to Python."""

State = tuple[Wholes, Tables, WholeTables]

_NONE = np.nan


def events(numbers: Wholes, floats: Tables, wholes: WholeTables) -> None:
    """Kernel: let events happen as long as there is room for one more."""
    state, now = (numbers, floats, wholes), floats[NOW]
    if numbers[EVENT] == 0:
        _call_next(state, 0.0)
    while numbers[HEAP] and numbers[STATUS] == GOES_ON and _has_room(state):
        code, now[CLOCK] = wholes[CODE][0], floats[AT][0]
        now[HORIZON] = max(now[HORIZON], now[CLOCK])
        numbers[HEAP] -= 1
        pop((floats[AT], wholes[KEY], wholes[CODE]), numbers[HEAP])
        kind, cell = code % KINDS, code // KINDS
        step = cell % (numbers[STEPS] + 1)
        if kind == TAKE_UP:
            _take_up(state)
        elif kind == ENDED:
            _pass_on(state, cell - step, step)
        elif kind == AGAIN:
            _try_again(state, cell - step, step)
        else:
            if kind == DUE:
                _meet(state, cell - step, step)
            _drop(state, cell - step, now[CLOCK])
    if numbers[FILLED] > numbers[FIRST]:
        _close(state)


@part
def _has_room(state: State) -> bool:
    """Whether the next event finds room and numbers, whatever it does."""
    numbers, floats, wholes = state
    filled = numbers[sums.DONE] + numbers[FILLED] - numbers[FIRST]
    room = numbers[SLOTS] > 0 and filled < numbers[ROOM] and numbers[BREAKS] < MOST_BREAKS
    room &= floats[NOW][HORIZON] < floats[NOW][SAFE]
    comes = numbers[CLOSED] == 1 or numbers[BEGUN] == numbers[IMAGES]
    room &= comes or numbers[ARRIVED] < numbers[COMES]
    if numbers[SPARE] == 0:  # an event takes at most one number of each stream
        numbers[SPARE] = numbers[SAMPLES]
        for step in range(numbers[STEPS]):
            draw = wholes[PLAN][OF_PLAN * step + RANDOM]
            if draw >= 0:
                numbers[SPARE] = min(numbers[SPARE], numbers[SAMPLES] - wholes[TAKEN][draw])
        room &= numbers[SPARE] > 0
    numbers[SPARE] -= room
    numbers[STATUS] = GOES_ON if room else WANTS
    return bool(room)


@part
def _push(state: State, time: float, late: int, code: int) -> None:
    """Let an event happen, after earlier ones of its time, `late` ones last."""
    numbers, floats, wholes = state
    key = late * 2**60 + numbers[EVENT]
    push((floats[AT], wholes[KEY], wholes[CODE]), numbers[HEAP], time, key, code)
    numbers[HEAP] += 1
    numbers[EVENT] += 1


@part
def _call_next(state: State, time: float) -> None:
    """Schedule the next image: now in a closed loop, else when it arrives."""
    numbers, floats, _ = state
    if numbers[BEGUN] < numbers[IMAGES]:
        if not numbers[CLOSED]:
            time = floats[CAME][numbers[ARRIVED]]
            numbers[ARRIVED] += 1
        floats[NOW][COMING] = time
        _push(state, time, 0, TAKE_UP)


@part
def _take_up(state: State) -> None:
    numbers, floats, wholes = state
    start, steps, lists = floats[NOW][COMING], numbers[STEPS], wholes[LISTS]
    numbers[SLOTS] -= 1
    image, waiting = wholes[STACK][numbers[SLOTS]], wholes[WAITING]
    for place in range(image * OF_CELL, (image + steps + 1) * OF_CELL):
        floats[CELLS][place] = _NONE
    floats[CELLS][(image + steps) * OF_CELL + START] = start
    for step in range(steps):
        waiting[(image + step) * OF_WAIT + MISSING] = wholes[NEEDED][step]
    own = (image + steps) * OF_WAIT
    waiting[own + NUMBER], waiting[own + UNDER_WAY], waiting[own + SETTLED] = numbers[BEGUN], 0, 0
    numbers[BEGUN] += 1
    roots = numbers[ROOTS]
    for place in range(lists[roots], lists[roots + 1]):
        _begin(state, image, wholes[MEMBERS][place], start)
    for place in range(lists[roots + 1], lists[roots + 2]):
        step = wholes[MEMBERS][place]
        due = start + floats[TIMES][3 * step + 2]
        _await(state, image, due, 1, DUE + KINDS * (image + step))
    if not numbers[CLOSED]:
        _call_next(state, start)


@part
def _await(state: State, image: int, time: float, late: int, code: int) -> None:
    """Let one more moment of an image come."""
    state[2][WAITING][(image + state[0][STEPS]) * OF_WAIT + UNDER_WAY] += 1
    _push(state, time, late, code)


@part
def _begin(state: State, image: int, step: int, ready: float) -> None:
    """Queue a step that is ready, and the steps that it alone sets off."""
    numbers, floats, wholes = state
    plan, last = wholes[PLAN], step
    while step >= 0:
        hold, delay = floats[TIMES][3 * step], floats[TIMES][3 * step + 1]
        draw = plan[OF_PLAN * step + RANDOM]
        if draw >= 0:
            at = 2 * draw * numbers[SAMPLES] + wholes[TAKEN][draw]
            hold, delay = floats[DRAWS][at], floats[DRAWS][at + numbers[SAMPLES]]
            wholes[TAKEN][draw] += 1
        if not _queue(state, image, step, ready, (hold, delay), 0):
            return
        ready = floats[CELLS][(image + step) * OF_CELL + END]
        last, step = step, plan[OF_PLAN * step + NEXT]
    _await(state, image, ready, 0, ENDED + KINDS * (image + last))


@part
def _queue(
    state: State, image: int, step: int, ready: float, drawn: tuple[float, float], tries: int
) -> bool:
    """Queue a step that broke off `tries` times; return whether its end is known already."""
    numbers, floats, wholes = state
    free, cells, cell = floats[FREE], floats[CELLS], (image + step) * OF_CELL
    begin, end = wholes[LISTS][step], wholes[LISTS][step + 1]
    for place in range(begin, end):
        ready = max(ready, free[wholes[MEMBERS][place]])
    start, until, repair = _hold(state, image, step, ready, drawn[0])
    for place in range(begin, end):
        free[wholes[MEMBERS][place]] = until
    floats[NOW][HORIZON] = max(floats[NOW][HORIZON], until)
    if repair != repair:
        cells[cell + START], cells[cell + FREED] = start, until
        cells[cell + END] = until + drawn[1]
    elif numbers[LOSES] or repair == np.inf:
        cells[cell + REPAIR] = repair
        _await(state, image, until, 0, GONE + KINDS * (image + step))
    else:
        cells[cell + HOLD], cells[cell + DELAY] = drawn
        wholes[WAITING][(image + step) * OF_WAIT + TRIES] = tries + 1
        numbers[STATUS] = GIVES_UP if tries + 1 == MOST_TRIES else numbers[STATUS]
        _await(state, image, repair, 0, AGAIN + KINDS * (image + step))
    return bool(repair != repair)


@part
def _hold(
    state: State, image: int, step: int, start: float, hold: float
) -> tuple[float, float, float]:
    """Start and end of the last try, and its repair, NaN if none."""
    numbers, floats, wholes = state
    where, quiet = wholes[PLAN][OF_PLAN * step + WHERE], floats[QUIET]
    for _ in range(MOST_TRIES):
        until = start + hold
        if where < 0 or (quiet[2 * where] <= start and until <= quiet[2 * where + 1]):
            return start, until, _NONE
        since, down, up = _next_down(state, where, start)
        if down >= until:
            quiet[2 * where], quiet[2 * where + 1] = since, down
            return start, until, _NONE
        if start < down:
            if numbers[BREAKS] == 2 * MOST_BREAKS:
                break
            broken, at = floats[BROKEN], 4 * numbers[BREAKS]
            broken[at] = wholes[WAITING][(image + numbers[STEPS]) * OF_WAIT + NUMBER]
            broken[at + 1], broken[at + 2], broken[at + 3] = step, start, down
            numbers[BREAKS] += 1
        if up == np.inf or not wholes[PLAN][OF_PLAN * step + STAYS]:
            return start, max(start, down), up
        start = up
    numbers[STATUS] = GIVES_UP
    return start, start, np.inf


@part
def _next_down(state: State, where: int, time: float) -> tuple[float, float, float]:
    """First interval that ends after `time`, of all that concern the places.

    Before it stands since when nothing was down until then.
    """
    numbers, floats, wholes = state
    since, down, up, failures = 0.0, np.inf, np.inf, wholes[FAILURES]
    lists = numbers[STEPS] + where
    for place in range(wholes[LISTS][lists], wholes[LISTS][lists + 1]):
        one = wholes[MEMBERS][place] * OF_FAILURE
        begin, known, at = failures[one + FROM], failures[one + KNOWN], failures[one + CURSOR]
        while at and floats[UPS][begin + at - 1] > time:
            at -= 1
        while at < known and floats[UPS][begin + at] <= time:
            at += 1
        failures[one + CURSOR] = at
        since = max(since, floats[UPS][begin + at - 1]) if at else since
        if at < known:
            start, end = floats[DOWNS][begin + at], floats[UPS][begin + at]
            if start < down or (start == down and end < up):
                down, up = start, end
        elif failures[one + RENEWS]:
            numbers[STATUS] = GIVES_UP
    return since, down, up


@part
def _try_again(state: State, image: int, step: int) -> None:
    """Queue a step again whose boards are up again, for the times drawn at first."""
    numbers, floats, wholes = state
    cells, cell, waiting = floats[CELLS], (image + step) * OF_CELL, wholes[WAITING]
    waiting[(image + numbers[STEPS]) * OF_WAIT + UNDER_WAY] -= 1
    drawn, tries = (
        (cells[cell + HOLD], cells[cell + DELAY]),
        waiting[(image + step) * OF_WAIT + TRIES],
    )
    if _queue(state, image, step, floats[NOW][CLOCK], drawn, tries):
        following = wholes[PLAN][OF_PLAN * step + NEXT]
        if following >= 0:
            _begin(state, image, following, cells[cell + END])
        else:
            _await(state, image, cells[cell + END], 0, ENDED + KINDS * (image + step))


@part
def _pass_on(state: State, image: int, step: int) -> None:
    """Pass on the end of a step: begin what waits for nothing else."""
    numbers, floats, wholes = state
    steps, begins, waiting = numbers[STEPS], wholes[BEGINS], wholes[WAITING]
    now = floats[CELLS][(image + step) * OF_CELL + END]
    for place in range(begins[steps + step], begins[steps + step + 1]):
        follower = wholes[ITEMS][place]
        waiting[(image + follower) * OF_WAIT + MISSING] -= 1
        if not waiting[(image + follower) * OF_WAIT + MISSING]:
            _begin(state, image, follower, now)
    if step == numbers[sums.SINK]:
        floats[CELLS][(image + steps) * OF_CELL + END] = now
        _settle(state, image, now)
    _drop(state, image, now)


@part
def _settle(state: State, image: int, now: float) -> None:
    """Call the next image of a closed loop at an answer or loss."""
    numbers, _, wholes = state
    own = (image + numbers[STEPS]) * OF_WAIT
    if not wholes[WAITING][own + SETTLED]:
        wholes[WAITING][own + SETTLED] = 1
        if numbers[CLOSED]:
            _call_next(state, now)


@part
def _meet(state: State, image: int, step: int) -> None:
    """Meet a deadline: the step begins with what came; if nothing came, it never does."""
    _, floats, wholes = state
    waiting, now = wholes[WAITING], floats[NOW][CLOCK]
    waited_for = waiting[(image + step) * OF_WAIT + MISSING]
    if waited_for > 0:
        waiting[(image + step) * OF_WAIT + MISSING] = 0
        if waited_for < wholes[NEEDED][step]:
            _begin(state, image, step, now)
        else:
            _settle(state, image, now)


@part
def _drop(state: State, image: int, now: float) -> None:
    """One moment of an image is over; after the last, retire it."""
    numbers, _, wholes = state
    own = (image + numbers[STEPS]) * OF_WAIT
    wholes[WAITING][own + UNDER_WAY] -= 1
    if wholes[WAITING][own + UNDER_WAY]:
        return
    if not wholes[WAITING][own + SETTLED]:
        repair = _answerable(state, image)
        _settle(state, image, max(now, repair) if repair < np.inf else now)
    _write(state, image)
    wholes[STACK][numbers[SLOTS]] = image
    numbers[SLOTS] += 1


@part
def _write(state: State, image: int) -> None:
    """Write the times of an image into a column."""
    numbers, floats, wholes = state
    rows, steps, column = floats[sums.ROWS], numbers[STEPS], numbers[FILLED]
    own, cells = sums.BY_STEP * steps, floats[CELLS]
    for step in range(steps):
        cell = (image + step) * OF_CELL
        rows[step * WIDTH + column] = cells[cell + START]
        rows[(sums.ENDS * steps + step) * WIDTH + column] = cells[cell + END]
        rows[(sums.FREES * steps + step) * WIDTH + column] = cells[cell + FREED]
    rows[(own + sums.BEGAN) * WIDTH + column] = cells[(image + steps) * OF_CELL + START]
    rows[(own + sums.ENDED) * WIDTH + column] = cells[(image + steps) * OF_CELL + END]
    if numbers[sums.KEEPS]:
        number = wholes[WAITING][(image + steps) * OF_WAIT + NUMBER]
        wholes[INFERENCES][numbers[sums.DONE] + column - numbers[FIRST]] = number
    numbers[FILLED] += 1
    if numbers[FILLED] == WIDTH:
        _close(state)


@part
def _close(state: State) -> None:
    """Add the images of the columns; the next one goes into its lane."""
    numbers, floats, wholes = state
    add_chunk(numbers, floats, wholes, numbers[FIRST], numbers[FILLED] - numbers[FIRST])
    numbers[FIRST] = numbers[FILLED] = numbers[FILLED] % sums.LANES


@part
def _answerable(state: State, image: int) -> float:
    """As `answerable_ms`."""
    numbers, floats, wholes = state
    steps, can, begins = numbers[STEPS], floats[CAN], wholes[BEGINS]
    for step in range(steps):
        can[step], repair = 0.0, floats[CELLS][(image + step) * OF_CELL + REPAIR]
        if repair == repair:
            can[step] = repair
        elif wholes[WAITING][(image + step) * OF_WAIT + MISSING] > 0:
            for place in range(begins[step], begins[step + 1]):
                one, at = can[wholes[ITEMS][place]], steps + place - begins[step]
                while at > steps and can[at - 1] > one:
                    can[at] = can[at - 1]
                    at -= 1
                can[at] = one
            can[step] = can[steps + wholes[NEEDED][step] - 1]
    return float(can[numbers[sums.SINK]])


def event_plan(
    graph: TaskGraph, scenario: Scenario, failures: FailureTimes, drawn: list[int]
) -> tuple[Wholes, Wholes, Wholes]:
    """Plan of the steps, of which some are drawn; begins and items of lists.

    These are: what each holds, failures of each set of places, first steps, steps with a deadline.
    """
    ups = [failures.of(step.places) for step in graph.steps]
    where = list(dict.fromkeys(each for each in ups if each))
    places = ([failures.downs.index(each) for each in one.downs] for one in where)
    roots = (index for index, step in enumerate(graph.steps) if not step.after)
    due = (index for index, step in enumerate(graph.steps) if step.deadline_ms is not None)
    plan = np.full((len(graph.steps), OF_PLAN), -1, dtype=np.int64)
    for index, (following, up) in enumerate(zip(graph.next_steps, ups, strict=True)):
        plan[index, NEXT] = -1 if following is None else following
        plan[index, WHERE] = where.index(up) if up else -1
        plan[index, STAYS] = graph.exclusive[index] and scenario.on_failure != "lose"
        plan[index, RANDOM] = drawn.index(index) if index in drawn else -1
    return plan, *flat_lists([*graph.held, *places, roots, due])


EVENTS = Kernel(events, "simulator.results.image_sums")
"""The event loop; loaded where a run is long enough."""
