"""The recurrence in native code: the same times as in Python, to the last bit.

Where images keep their order, step after step is computed for some images at a time; in a closed
loop, where an image begins when the one before it is answered, image after image.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from simulator.engine import ImageBlocks
from simulator.engine import compiled_events as ev
from simulator.engine.kernel import DownTable, NumberStream, is_constant, sample_batches
from simulator.native_code import Floats, Kernel, Tables, Wholes, WholeTables, flat_lists, part
from simulator.results import image_sums as sums
from simulator.results.image_sums import BY_STEP, ENDS, OWN_NUMBERS, STEPS, WIDTH, add_chunk
from simulator.results.statistics import Recorder
from simulator.scenario import Scenario
from simulator.task_graph import TaskGraph

SOME, DOWNS = 2**14, 128
"""How many numbers of a stream, and down times of a failure, are drawn ahead of the clock."""

RecurrenceRow = tuple[int, Sequence[int], int, Sequence[int], float, float, Iterator[Floats] | None]
"""A step: its index, what it waits for and how many of it, its resources, ms, and draws if any."""


def run_recurrence(
    rows: Sequence[RecurrenceRow],
    arrivals: Iterator[Floats] | None,
    images: int,
    resources: int,
    recorder: Recorder,
) -> None:
    """Let image after image pass through `rows`, the steps in their order.

    A step may wait for step number `steps`: that is the image's start.
    """
    blocks, steps = ImageBlocks(recorder, images), len(rows)
    groups = [list(range(steps))] if arrivals is None else _groups(rows)
    order = [row for group in groups for row in group]
    drawn = [row for row in order if rows[row][6] is not None]
    streams = [NumberStream(draws) for row in drawn if (draws := rows[row][6]) is not None]
    began = BY_STEP * steps + sums.BEGAN
    after = ([began if i == steps else ENDS * steps + i for i in rows[row][1]] for row in order)
    lists = flat_lists([*after, *(rows[row][3] for row in order)])
    plan = [(rows[r][0], rows[r][2], drawn.index(r) if r in drawn else -1) for r in order]
    begins, _ = flat_lists(groups)
    simple = [arrivals is not None and _is_simple([rows[row] for row in group]) for group in groups]
    wholes = [*blocks.wholes, *lists, np.array(plan), begins, np.array(simple, dtype=np.int64)]
    times_ms = np.array([rows[row][4:6] for row in order], dtype=np.float64)
    came = None if arrivals is None else NumberStream(arrivals)
    free_ms = np.zeros(resources + 1)
    blocks.numbers[OWN_NUMBERS : OWN_NUMBERS + 5] = (0, 0, came is None, len(groups), resources)
    for first in range(0, images, blocks.block):
        count = min(blocks.block, images - first)
        starts_ms = np.empty(0) if came is None else np.ascontiguousarray(came.take(count))
        draws_ms = np.zeros((len(streams), 2, count))
        for place, stream in enumerate(streams):
            draws_ms[place] = stream.take(count)
        blocks.numbers[OWN_NUMBERS : OWN_NUMBERS + 2] = (count, blocks.next_lane)
        floats = [*blocks.tables(first, count), starts_ms, free_ms, times_ms, draws_ms]
        RECURRENCE(blocks.numbers, floats, wholes)
        blocks.done()


def _groups(rows: Sequence[RecurrenceRow]) -> list[list[int]]:
    """Rows that share resources, which become ready together; each after what it waits for."""
    users: dict[int, list[int]] = {}
    groups: list[list[int]] = []
    for number, row in enumerate(rows):
        mine = [number]
        for other in {id(users[each]): users[each] for each in row[3] if each in users}.values():
            mine = sorted(other + mine)
            groups.remove(other)
        groups.append(mine)
        for member in mine:
            users.update(dict.fromkeys(rows[member][3], mine))
    return sorted(groups)


def _is_simple(rows: Sequence[RecurrenceRow]) -> bool:
    """Whether all wait for one step and hold one resource, for constant times."""
    return all(
        len(row[1]) == len(row[3]) == 1
        and (row[1], row[3]) == (rows[0][1], rows[0][3])
        and row[5] == 0
        and row[6] is None
        for row in rows
    )


class EventRun:
    """One run by events in native code; its arrays grow with the images under way."""

    def __init__(
        self, graph: TaskGraph, images: int, scenario: Scenario, recorder: Recorder
    ) -> None:
        self._recorder, self._images, steps = recorder, images, graph.steps
        self._blocks, failures = ImageBlocks(recorder, images), scenario.failure_times()
        arrivals, self._downs = scenario.arrival_batches(), DownTable(failures.downs)
        self._arrivals = NumberStream(arrivals or iter((np.empty(0),)))
        drawn = [index for index, step in enumerate(steps) if not is_constant(step)]
        draws = (sample_batches(steps[index], index, scenario.seed) for index in drawn)
        self._streams = [NumberStream(each) for each in draws]
        plan, *lists = ev.event_plan(graph, scenario, failures, drawn)
        loses, closed = scenario.on_failure == "lose", arrivals is None
        self._blocks.numbers[ev.EVENT : ev.ROOTS + 1] = (
            0,
            images,
            loses,
            closed,
            len(lists[0]) - 3,
        )
        self._blocks.numbers[ev.SAMPLES] = SOME if drawn else 2**62
        times_ms = [(s.duration_ms, s.transit.latency_ms, s.deadline_ms or 0.0) for s in steps]
        can, empty = np.zeros(1 + len(steps) + max(len(s.after) for s in steps)), np.empty(0)
        self._draws, self._taken = np.empty((len(drawn), 2, SOME)), np.full(len(drawn), SOME)
        self._now, self._broken = np.array([0.0, 0.0, 0.0, -1.0]), np.empty((2 * ev.MOST_BREAKS, 4))
        quiet, free_ms = np.zeros(2 * len(lists[0])), np.zeros(len(graph.resources))
        self._plan, self._lists = plan, lists
        self._floats = [empty, empty, np.array(times_ms, float), free_ms, empty, self._draws]
        self._floats += [empty, empty, quiet, self._now, self._broken, can]
        none = np.empty(0, dtype=np.int64)
        self._wholes = [none, none, none, none, plan, *lists, none, self._taken, none]

    def run(self) -> bool:
        """Whether all images are through; not where one event asked for more than was drawn."""
        numbers, broken, done = self._blocks.numbers, self._broken, 0
        while numbers[ev.HEAP] or not done:
            self._make_room()
            numbers[ev.ROOM] = count = min(self._blocks.block, self._images - done)
            self._wholes[-1] = self._blocks.inferences(done, count)
            floats = [*self._blocks.tables(done, count), *self._floats]
            ev.EVENTS(numbers, floats, [*self._blocks.wholes, *self._wholes])
            if numbers[ev.STATUS] == ev.GIVES_UP:
                return False
            for image, step, start_ms, end_ms in broken[: numbers[ev.BREAKS]].tolist():
                lasted_ms = end_ms - start_ms
                self._recorder.broke(int(image), int(step), start_ms, end_ms, lasted_ms)
            if numbers[sums.DONE]:
                self._blocks.done()
            done += int(numbers[sums.DONE])
        return True

    def _make_room(self) -> None:
        """Draw numbers and down times, and let arrays grow, where little is left."""
        numbers, now_ms = self._blocks.numbers, self._now
        numbers[ev.STATUS] = numbers[ev.BREAKS] = numbers[ev.SPARE] = 0
        for place, stream in enumerate(self._streams):
            left = self._draws[place, :, self._taken[place] :]
            self._draws[place] = np.concatenate(
                [left, stream.take(int(self._taken[place]))], axis=1
            )
        self._taken[:] = 0
        came = self._floats[ev.CAME - sums.OWN_FLOATS][numbers[ev.ARRIVED] :]
        came = np.concatenate([came, self._arrivals.take(SOME - len(came))])
        self._floats[ev.CAME - sums.OWN_FLOATS] = came
        numbers[ev.ARRIVED], numbers[ev.COMES] = 0, len(came)
        if now_ms[ev.HORIZON] >= now_ms[ev.SAFE]:
            downs, ups, rows, now_ms[ev.SAFE] = self._downs.ahead(
                now_ms[ev.CLOCK], now_ms[ev.HORIZON], DOWNS
            )
            at = ev.DOWNS - sums.OWN_FLOATS
            self._floats[at : at + 2] = downs, ups
            self._wholes[ev.FAILURES - sums.OWN_WHOLES] = np.array(rows, np.int64)
        if not numbers[ev.SLOTS]:
            self._grow()

    def _grow(self) -> None:
        """Make room for twice as many images; each awaits two moments a step."""
        cells, stack = len(self._plan) + 1, ev.STACK - sums.OWN_WHOLES
        images = len(self._wholes[stack])
        more = max(64, images)
        for at, each in ((ev.AT, 2 * cells), (ev.CELLS, cells * ev.OF_CELL)):
            array = self._floats[at - sums.OWN_FLOATS]
            self._floats[at - sums.OWN_FLOATS] = np.append(array, np.zeros(more * each))
        rows = ((ev.KEY, 2 * cells), (ev.CODE, 2 * cells), (ev.WAITING, cells * ev.OF_WAIT))
        for at, each in rows:
            wholes = self._wholes[at - sums.OWN_WHOLES]
            self._wholes[at - sums.OWN_WHOLES] = np.append(wholes, np.zeros(more * each, np.int64))
        self._wholes[stack] = np.arange(images, 2 * images + more) * cells
        self._blocks.numbers[ev.SLOTS] = more


# What the kernel gets beside what sums need.
COUNT, LANE, CLOSED, GROUPS, RESOURCES = range(OWN_NUMBERS, OWN_NUMBERS + 5)
CAME, FREE, TIMES, DRAWS = range(sums.OWN_FLOATS, sums.OWN_FLOATS + 4)
LISTS, MEMBERS, PLAN, FROM, SIMPLE = range(sums.OWN_WHOLES, sums.OWN_WHOLES + 5)


def recurrence(numbers: Wholes, floats: Tables, wholes: WholeTables) -> None:
    """Kernel: let images pass through all steps, and add them up."""
    rows, steps, count = floats[sums.ROWS], numbers[STEPS], numbers[COUNT]
    began, ended = BY_STEP * steps * WIDTH, (BY_STEP * steps + sums.ENDED) * WIDTH
    sink = (ENDS * steps + numbers[sums.SINK]) * WIDTH
    done, lane = 0, numbers[LANE]
    while done < count:
        width = min(WIDTH - lane, count - done)
        if not numbers[CLOSED]:
            for place in range(width):
                rows[began + lane + place] = floats[CAME][done + place]
        for group in range(numbers[GROUPS]):
            if wholes[SIMPLE][group]:
                _serve(numbers, floats, wholes, group, lane, lane + width)
            else:
                _pass(numbers, floats, wholes, group, done, lane, width)
        for j in range(lane, lane + width):
            rows[ended + j] = rows[sink + j]
        add_chunk(numbers, floats, wholes, lane, width)
        done, lane = done + width, 0


@part
def _serve(
    numbers: Wholes, floats: Tables, wholes: WholeTables, group: int, first: int, last: int
) -> None:
    """Let images pass through steps that wait for one step and hold one resource."""
    rows, holds, plan, ends = floats[sums.ROWS], floats[TIMES], wholes[PLAN], ENDS * numbers[STEPS]
    begin, end, at = wholes[FROM][group], wholes[FROM][group + 1], wholes[LISTS]
    ready = wholes[MEMBERS][at[begin]] * WIDTH
    resource = wholes[MEMBERS][at[numbers[STEPS] + begin]]
    free = floats[FREE][resource]
    if end - begin == 1:
        step, hold = plan[3 * begin] * WIDTH, holds[2 * begin]
        for j in range(first, last):
            start = rows[ready + j]
            start = free if start < free else start
            free = start + hold
            rows[step + j] = start
            rows[ends * WIDTH + step + j] = free
    else:
        for j in range(first, last):
            came = rows[ready + j]
            for row in range(begin, end):
                step = plan[3 * row] * WIDTH
                start = free if came < free else came
                free = start + holds[2 * row]
                rows[step + j] = start
                rows[ends * WIDTH + step + j] = free
    floats[FREE][resource] = free
    for row in range(begin, end if numbers[sums.DELAYS] else begin):
        freed = (sums.FREES * numbers[STEPS] + plan[3 * row]) * WIDTH
        for j in range(first, last):
            rows[freed + j] = rows[(ends + plan[3 * row]) * WIDTH + j]


@part
def _pass(
    numbers: Wholes,
    floats: Tables,
    wholes: WholeTables,
    group: int,
    done: int,
    lane: int,
    width: int,
) -> None:
    """Let image after image pass through a group of steps of any kind."""
    rows, free, steps = floats[sums.ROWS], floats[FREE], numbers[STEPS]
    plan, at, members, count = wholes[PLAN], wholes[LISTS], wholes[MEMBERS], numbers[COUNT]
    for place in range(width):
        j = lane + place
        if numbers[CLOSED]:
            rows[BY_STEP * steps * WIDTH + j] = free[numbers[RESOURCES]]
        for row in range(wholes[FROM][group], wholes[FROM][group + 1]):
            step, draw = plan[3 * row], plan[3 * row + 2]
            hold, delay = floats[TIMES][2 * row], floats[TIMES][2 * row + 1]
            if draw >= 0:
                hold = floats[DRAWS][2 * draw * count + done + place]
                delay = floats[DRAWS][(2 * draw + 1) * count + done + place]
            begin, end = at[row], at[row + 1]
            start = _gathered(floats, members, begin, end, plan[3 * row + 1], j)
            for each in range(at[steps + row], at[steps + row + 1]):
                until = free[members[each]]
                start = until if start < until else start
            through = start + hold
            for each in range(at[steps + row], at[steps + row + 1]):
                free[members[each]] = through
            rows[step * WIDTH + j] = start
            rows[(ENDS * steps + step) * WIDTH + j] = through + delay
            if numbers[sums.DELAYS]:
                rows[(sums.FREES * steps + step) * WIDTH + j] = through
        if numbers[CLOSED]:
            free[numbers[RESOURCES]] = rows[(ENDS * steps + numbers[sums.SINK]) * WIDTH + j]


@part
def _gathered(floats: Tables, members: Wholes, begin: int, end: int, needed: int, j: int) -> float:
    """Time at which so many of those before a step have ended."""
    rows, sorting = floats[sums.ROWS], floats[sums.SORTING]
    found: float = rows[members[begin] * WIDTH + j]
    if needed == end - begin:
        for place in range(begin + 1, end):
            found = max(found, rows[members[place] * WIDTH + j])
        return found
    for place in range(end - begin):
        ended, at = rows[members[begin + place] * WIDTH + j], place
        while at and sorting[at - 1] > ended:
            sorting[at] = sorting[at - 1]
            at -= 1
        sorting[at] = ended
    return float(sorting[needed - 1])


RECURRENCE = Kernel(recurrence, "simulator.results.image_sums")
"""The recurrence; loaded where a run is long enough."""
