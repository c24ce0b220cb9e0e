"""How fast images are simulated, against a textbook SimPy model of the same workload.

    python benchmarks/simulation.py

The textbook model is what SimPy's documentation teaches: a process per image and per board, a
Resource per network card, link and processor, and per hop a request and a timeout.  Like the
simulator with a trace, it keeps what each hop did: it as tuples, the simulator as arrays, of which
rows are made when somebody asks (not timed).  With failures, both let a hop that falls into a down
time queue anew after it.

Each hop of each image is compared before any time is shown.  Where cimba is installed, the tables
of `cimba_fan_out.py` follow, measured in the same run.
"""

import json
import platform
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from operator import itemgetter
from typing import Annotated, Any, TypeVar

import numpy as np
import simpy
import typer
from rich.console import Console
from rich.table import Table

from profiles.fleet import Board, parse_fleet, resolve
from simulator.engine.simulation import Path, simulate
from simulator.graph_builder import GraphBuilder, join_ms, send_ms
from simulator.scenario import UNDISTURBED, Poisson, Scenario, TimedFailure, random_stream
from simulator.task_graph import HOST, Step, TaskGraph
from simulator.workloads.fan_out import FanOut, StudentWork, busy_ms, reply_ms

T = TypeVar("T")
Story = Generator[simpy.Event, Any, None]
Hop = tuple[int, str, str, float, float]
"""Image, actor, activity, start and end in ms."""

BOARDS = 8
PER_S = 5.0  # of images; a board is busy for half of the time
MEAN_UP_MS, MEAN_DOWN_MS = 60_000.0, 2_000.0
LAYERS, EXCHANGE_MS, MESSAGE_MS, SHARE_MS, MAPS_BYTES = 40, 1.5, 0.8, 2.5, 4096
TOLERANCE_MS = 1e-6
CIMBA_IMAGES = 100_000


class Textbook:
    """A SimPy environment with resources by name, and what each hop did."""

    def __init__(self, outages: Sequence[TimedFailure] = ()) -> None:
        self.environment = simpy.Environment()
        self.hops: list[Hop] = []
        self.latencies_ms: list[float] = []
        self._resources: dict[str, simpy.Resource] = {}
        self._downs: dict[str, list[tuple[float, float]]] = {}
        for outage in outages:
            for board in outage.boards:
                self._downs.setdefault(board, []).append((outage.at_ms, outage.repaired_ms or 0.0))

    def resource(self, name: str) -> simpy.Resource:
        """Return the resource of this name."""
        if name not in self._resources:
            self._resources[name] = simpy.Resource(self.environment)
        return self._resources[name]

    def hop(
        self, image: int, actor: str, activity: str, server: simpy.Resource, ms: float, board: str
    ) -> Story:
        """Hold `server` for a time, queueing anew after each failure of `board` that hits it."""
        while True:
            with server.request() as request:
                yield request
                start_ms = self.environment.now
                if (down := self._next_down(board, ms)) is None:
                    yield self.environment.timeout(ms)
                    self.hops.append((image, actor, activity, start_ms, self.environment.now))
                    return
                yield self.environment.timeout(max(0.0, down[0] - start_ms))
            yield self.environment.timeout(down[1] - self.environment.now)

    def exchange(self, image: int, sender: str, receiver: str, ms: float) -> Story:
        """Hold the sender's and the receiver's side for a time."""
        up, down = self.resource(f"{sender}.up"), self.resource(f"{receiver}.down")
        with up.request() as one, down.request() as other:
            yield one & other
            start_ms = self.environment.now
            yield self.environment.timeout(ms)
            self.hops.append((image, sender, "exchange", start_ms, self.environment.now))

    def all_of(self, stories: Sequence[Story]) -> simpy.Event:
        """Tell stories at once; happens when all are over."""
        return self.environment.all_of([self.environment.process(story) for story in stories])

    def run(self, image: Callable[[int], Story], images: int, starts_ms: Sequence[float]) -> None:
        """Run images at their starts, or in a closed loop if there are none."""

        def timed(number: int) -> Story:
            start_ms = self.environment.now
            yield from image(number)
            self.latencies_ms.append(self.environment.now - start_ms)

        def source() -> Story:
            for number in range(images):
                if starts_ms:
                    yield self.environment.timeout(starts_ms[number] - self.environment.now)
                    self.environment.process(timed(number))
                else:
                    yield self.environment.process(timed(number))

        self.environment.process(source())
        self.environment.run()

    def _next_down(self, board: str, ms: float) -> tuple[float, float] | None:
        """Return when the board is down, if it is before a hop that begins now is over."""
        if not (downs := self._downs.get(board)):
            return None
        index = bisect_right(downs, self.environment.now, key=itemgetter(1))
        if index < len(downs) and downs[index][0] < self.environment.now + ms:
            return downs[index]
        return None


def textbook_fan_out(
    workload: FanOut,
    images: int,
    starts_ms: Sequence[float] = (),
    outages: Sequence[TimedFailure] = (),
) -> Textbook:
    """Send, compute, reply on each board; join."""
    book = Textbook(outages)
    sender, joiner = book.resource("host.nic"), book.resource("host.cpu")
    joining_ms = join_ms(workload.host)
    posts = [
        (
            board.name,
            book.resource(f"{board.name}.cpu"),
            book.resource(f"{board.name}.up"),
            send_ms(board, workload.image_bytes),
            busy_ms(board.device, [student.macs for student in students]),
            reply_ms(board, sum(student.features for student in students)),
        )
        for board, students in workload.sends()
    ]

    def on_board(
        image: int,
        name: str,
        cpu: simpy.Resource,
        link: simpy.Resource,
        sending_ms: float,
        computing_ms: float,
        replying_ms: float,
    ) -> Story:
        yield from book.hop(image, HOST, "send", sender, sending_ms, name)
        yield from book.hop(image, name, "compute", cpu, computing_ms, name)
        yield from book.hop(image, name, "reply", link, replying_ms, name)

    def image(number: int) -> Story:
        yield book.all_of([on_board(number, *post) for post in posts])
        yield from book.hop(number, HOST, "join", joiner, joining_ms, HOST)

    book.run(image, images, starts_ms)
    return book


def textbook_all_to_all(names: Sequence[str], wire_ms: float, images: int) -> Textbook:
    """Per layer: each board computes a share; all meet; each sends to all others, in rounds."""
    book = Textbook()

    def share(image: int, name: str) -> Story:
        yield from book.hop(image, name, "compute", book.resource(f"{name}.cpu"), SHARE_MS, name)

    def sends(image: int, place: int) -> Story:
        for further in range(1, len(names)):
            receiver = names[(place + further) % len(names)]
            yield from book.exchange(image, names[place], receiver, MESSAGE_MS + wire_ms)

    def image(number: int) -> Story:
        for _ in range(LAYERS):
            yield book.all_of([share(number, name) for name in names])
            yield book.environment.timeout(EXCHANGE_MS)
            yield book.all_of([sends(number, place) for place in range(len(names))])

    book.run(image, images, ())
    return book


def all_to_all(boards: Sequence[Board]) -> TaskGraph:
    """Return the same as steps."""
    build = GraphBuilder()
    before: tuple[int, ...] = ()
    for _ in range(LAYERS):
        shares = [build.compute(board, ms=SHARE_MS, mj=0.0, after=before) for board in boards]
        met = build.add(Step(HOST, "join", (), EXCHANGE_MS, tuple(shares)))
        before = tuple(
            build.exchange(
                boards[b],
                boards[(b + further) % len(boards)],
                MAPS_BYTES,
                (met,),
                message_ms=MESSAGE_MS,
            )
            for further in range(1, len(boards))
            for b in range(len(boards))
        )
    return build.graph(build.add(Step(HOST, "join", (), 0.0, before)))


def nonn(boards: Sequence[Board], macs: Sequence[int], features: int = 46) -> FanOut:
    """Return a NoNN with one student on each board."""
    host, _ = resolve(parse_fleet("rpi3x2"))
    students = tuple(
        StudentWork(f"student-{board.name}", board.name, each, features)
        for board, each in zip(boards, macs, strict=True)
    )
    return FanOut(host, tuple(boards), students, tuple(b.name for b in boards), image_bytes=12_288)


def outages(boards: Sequence[Board], until_ms: float, seed: int) -> tuple[TimedFailure, ...]:
    """Draw when each board is down, a second at a time."""
    generator = random_stream(seed, "failures")
    drawn = []
    for board in boards:
        up_ms = 0.0
        while up_ms < until_ms:
            down_ms = up_ms + generator.exponential(MEAN_UP_MS)
            up_ms = down_ms + generator.exponential(MEAN_DOWN_MS)
            drawn.append(TimedFailure((board.name,), down_ms, up_ms))
    return tuple(drawn)


def timed(make: Callable[[], T], repeats: int) -> tuple[T, float]:
    """Return the result, and the least time of `repeats` runs, in s."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        made = make()
        seconds.append(time.perf_counter() - start)
    return made, min(seconds)


def worst_difference_ms(
    book: Textbook, path: Path, graph: TaskGraph, images: int, world: Scenario
) -> float:
    """Run `job` with its trace and compare each hop with the textbook's."""
    result = simulate(graph, images, world, path=path, compiled=False)
    ours = sorted(
        (row.inference, row.actor, row.activity, row.start_ms, row.end_ms)
        for row in result.intervals
        if row.resource and not row.lost
    )
    theirs = sorted(book.hops)
    if [hop[:3] for hop in ours] != [hop[:3] for hop in theirs]:
        raise AssertionError("the simulator and the textbook did not do the same hops")
    times = np.array([hop[3:] for hop in ours]) - np.array([hop[3:] for hop in theirs])
    worst_ms = float(np.abs(times).max())
    if worst_ms > TOLERANCE_MS:
        raise AssertionError(f"the simulator and the textbook differ by {worst_ms:g} ms")
    return worst_ms


def compare(
    name: str,
    textbook: Callable[[], Textbook],
    ways: dict[str, tuple[Path, Scenario]],
    graph: TaskGraph,
    images: int,
    repeats: int,
) -> list[dict[str, object]]:
    """Time the textbook and some ways through the simulator."""
    book, textbook_s = timed(textbook, repeats)
    rows: list[dict[str, object]] = []
    for way, (path, world) in ways.items():
        worst_ms = worst_difference_ms(book, path, graph, images, world)

        def ours(path: Path = path, world: Scenario = world) -> object:
            return simulate(graph, images, world, path=path, compiled=False)

        _, ours_s = timed(ours, repeats)
        rows.append(_row(name, way, images, textbook_s / images, ours_s / images, worst_ms))
    return rows


def both_ways(world: Scenario) -> dict[str, tuple[Path, Scenario]]:
    """Ways of the simulator for a scenario without failures."""
    return {way: (way, world) for way in ("events", "recurrence")}


def fan_out_rows(images: int, repeats: int, seed: int) -> list[dict[str, object]]:
    """Eight Raspberry Pi with a student each: open and closed, with and without failures."""
    workload = eight_boards()
    boards, graph = workload.boards, workload.graph()
    poisson = Poisson(PER_S)
    starts_ms = list(islice(poisson.times(random_stream(seed, "arrivals")), images))
    failing = outages(boards, starts_ms[-1], seed)
    disturbed = Scenario(poisson, failing, seed=seed)
    return [
        *compare(
            "NoNN, Poisson, failures",
            lambda: textbook_fan_out(workload, images, starts_ms, failing),
            {"events": ("events", disturbed)},
            graph,
            images,
            repeats,
        ),
        *compare(
            "NoNN, Poisson",
            lambda: textbook_fan_out(workload, images, starts_ms),
            both_ways(Scenario(poisson, seed=seed)),
            graph,
            images,
            repeats,
        ),
        *compare(
            "NoNN, closed loop",
            lambda: textbook_fan_out(workload, images),
            both_ways(UNDISTURBED),
            graph,
            images,
            repeats,
        ),
    ]


def all_to_all_rows(images: int, repeats: int) -> list[dict[str, object]]:
    """Forty layers, after each of which eight boards send to all others."""
    boards = eight_boards().boards
    wire_ms = 8000 * MAPS_BYTES / boards[0].link.bits_per_s.value
    return compare(
        f"all-to-all, {LAYERS} layers",
        lambda: textbook_all_to_all([board.name for board in boards], wire_ms, images),
        both_ways(UNDISTURBED),
        all_to_all(boards),
        images,
        repeats,
    )


def eight_boards() -> FanOut:
    """Return the NoNN on eight Raspberry Pi."""
    return nonn(resolve(parse_fleet(f"rpi-3b*{BOARDS}"))[1], [83_500_000] * BOARDS)


def _row(
    name: str, way: str, images: int, textbook_s: float, ours_s: float, worst_ms: float
) -> dict[str, object]:
    return {
        "workload": name,
        "way": way,
        "images": images,
        "textbook_us": 1e6 * textbook_s,
        "ours_us": 1e6 * ours_s,
        "textbook_over_ours": textbook_s / ours_s,
        "worst_difference_ms": worst_ms,
    }


def main(
    images: Annotated[int, typer.Option(help="Images of a NoNN per run.")] = 2000,
    repeats: Annotated[int, typer.Option(help="Runs of each; the quickest counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    seed: int = 0,
) -> None:
    """Simulate the same workloads both ways, and compare results and times."""
    rows = fan_out_rows(images, repeats, seed) + all_to_all_rows(max(1, images // 40), repeats)
    python = f"{platform.machine()}, Python {platform.python_version()}"
    machine = f"{python}, simpy {version('simpy')}, numpy {np.__version__}"
    console, cimba = Console(), dict[str, list[dict[str, object]]]()
    if find_spec("cimba"):
        from cimba_fan_out import beside_cimba, tables_of

        cimba = beside_cimba(CIMBA_IMAGES, repeats, seed)
    if as_json:
        console.print_json(json.dumps({"machine": machine, "rows": rows, "cimba": cimba}))
        return
    table = Table("workload", title=f"Microseconds per image, one core ({machine})")
    for name in ("way", "textbook", "ours", "textbook / ours", "worst difference, ms"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row["workload"]),
            str(row["way"]),
            f"{row['textbook_us']:.1f}",
            f"{row['ours_us']:.3f}",
            f"{row['textbook_over_ours']:,.1f}",
            f"{row['worst_difference_ms']:.1g}",
        )
    console.print(table)
    for beside in tables_of(cimba, CIMBA_IMAGES) if cimba else ():
        console.print(beside)


if __name__ == "__main__":
    typer.run(main)
