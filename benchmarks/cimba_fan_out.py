"""How fast images are simulated, against cimba: a C engine under Python code that numba compiles.

    pip install cimba
    python benchmarks/cimba_fan_out.py

A NoNN on eight boards, Poisson arrivals; in a second table boards fail and lose what they do, and
the join has a deadline; both draw the same arrivals and down times.

Processor time, in turns, the least of several runs; start is what a new process takes until the
first image, everything being compiled already where that can be kept on disk.  Before any time is
shown, each image's latency is compared with cimba's, and compiled with not compiled runs, to the
last bit.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated

import cimba
import numpy as np
import typer
from cimba import inputs
from cimba_servers import FailingHost, FailingServer, HostServer, Server
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from simulation import MEAN_DOWN_MS, MEAN_UP_MS, PER_S, TOLERANCE_MS, eight_boards

from simulator.engine.simulation import EVENTS, RECURRENCE, simulate
from simulator.graph_builder import join_ms, send_ms
from simulator.results.simulation_result import SimulationResult
from simulator.scenario import Poisson, RenewalFailure, Scenario, random_stream
from simulator.workloads.fan_out import FanOut, busy_ms, reply_ms

HERE = Path(__file__).parent
DEADLINE_MS = 250.0
"""Of the join, since an image came; a tenth of the images wait longer."""

Downs = list[tuple[float, float]]
"""Times at which a board is down, and up again; the last ones are never."""


class CimbaFanOut:
    """A fan-out with images at given times, ready to run again and again."""

    def __init__(
        self,
        workload: FanOut,
        starts_ms: Sequence[float],
        downs: dict[str, Downs] | None = None,
    ) -> None:
        self._workload, self._starts_ms, self._downs = workload, np.array(starts_ms), downs

    def mean_ms(self) -> float:
        """Run all images; return the mean latency of the answers."""
        host = self._host()
        return float(cimba.Experiment(host).run(workers=1)[host].mean_ms[0, 0])

    def latencies_ms(self) -> NDArray[np.float64]:
        """Run all images; return the latencies of the answers, in their order."""
        host = self._host()
        host.latency_ms.capture()
        _, latencies = cimba.Experiment(host).run(workers=1)[host].latency_ms.trial(0, 0)
        return np.array(latencies)

    def _host(self) -> HostServer | FailingHost:
        workload, images = self._workload, len(self._starts_ms)
        host = HostServer() if self._downs is None else FailingHost()
        host.gaps = inputs.trace(np.diff(self._starts_ms, prepend=0.0))
        host.images, host.joining_ms = images, join_ms(workload.host)
        host.starts_ms, host.came = cimba.Array(images), cimba.Array(images)
        host.latency_ms, host.replies = cimba.Dataset(), cimba.Store()
        sends = workload.sends()
        host.sending_ms = cimba.Array([send_ms(board, workload.image_bytes) for board, _ in sends])
        if self._downs is not None:
            host.over, host.places = cimba.Array(images), cimba.Array(len(sends))
            host.deadline_ms = workload.deadline_ms
        boards, links = [], []
        for board, students in sends:
            computing_ms = busy_ms(board.device, [each.macs for each in students])
            replying_ms = reply_ms(board, sum(each.features for each in students))
            links.append(self._server(board.name, replying_ms, host.replies))
            boards.append(self._server(board.name, computing_ms, links[-1].inbox))
        host.boards, host.links = boards, links
        return host

    def _server(
        self, name: str, holding_ms: float, outbox: "cimba.Store[int]"
    ) -> Server | FailingServer:
        server = Server() if self._downs is None else FailingServer()
        server.holding_ms, server.inbox, server.outbox = holding_ms, cimba.Store(), outbox
        if self._downs is not None:
            server.downs_ms, server.ups_ms = map(cimba.Array, zip(*self._downs[name], strict=True))
        return server


def down_times(failures: Sequence[RenewalFailure], until_ms: float, seed: int) -> dict[str, Downs]:
    """When each board is down, from the numbers that the simulator draws."""
    made = {}
    for index, failure in enumerate(failures):
        generator, up_ms, downs = random_stream(seed, "failures", index), 0.0, []
        while up_ms < until_ms:
            down_ms = up_ms + generator.exponential(failure.mttf_ms)
            up_ms = down_ms + generator.exponential(failure.mttr_ms)
            downs.append((down_ms, up_ms))
        made[failure.boards[0]] = [*downs, (1e300, 1e300)]
    return made


STARTS = {
    "cimba": """
import numpy, cimba_fan_out as here
from simulation import eight_boards
t = here.time.process_time()
here.CimbaFanOut(eight_boards(), [0.0, 1.0]).mean_ms()
print(here.time.process_time() - t)
""",
    "compiled": """
import numpy, time
from simulator.engine.compiled_events import EVENTS
t = time.process_time()
assert EVENTS.find()
print(time.process_time() - t)
""",
}


def start_s(way: str, repeats: int) -> float:
    """Return the processor time of a new process until its first image, in s."""
    command = [sys.executable, "-c", STARTS[way]]
    found = (
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)  # noqa: S603
        for _ in range(repeats)
    )
    return min(float(each.stdout) for each in found)


def told(result: SimulationResult) -> tuple[str, list[bytes]]:
    """Return all that a result says, and the bytes of its recording."""
    batch = result.recording.batch
    columns = [getattr(batch, name).tobytes() for name in type(batch).__slots__]
    return repr(replace(result, recording=None, inferences=())), columns


def rows_of(
    workload: FanOut, world: Scenario, theirs: CimbaFanOut, images: int, repeats: int
) -> list[dict[str, object]]:
    """Return processor time per image of cimba and of ours, of one run."""
    graph = workload.graph()
    latencies_ms = theirs.latencies_ms()
    ours = simulate(graph, images, world, compiled=True)
    if told(ours) != told(simulate(graph, images, world, compiled=False)):
        raise AssertionError("compiled and other runs differ")
    answered = sorted((row.end_ms, row.latency_ms) for row in ours.inferences if row.answered)
    worst_ms = float(np.abs(np.array(answered)[:, 1] - latencies_ms).max())
    if worst_ms > TOLERANCE_MS:
        raise AssertionError(f"the simulator and cimba differ by {worst_ms:g} ms")
    ways: dict[str, Callable[[], object]] = {
        "cimba": theirs.mean_ms,
        "summary, compiled": lambda: simulate(graph, images, world, "totals", compiled=True),
        "trace, compiled": lambda: simulate(graph, images, world, compiled=True),
        "summary, Python": lambda: simulate(graph, images, world, "totals", compiled=False),
    }
    least_s = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for way, run in ways.items():
            began = time.process_time()
            run()
            least_s[way] = min(least_s[way], time.process_time() - began)
    start = {way: start_s(way, repeats) for way in STARTS} | {"Python": 0.0}
    start_of = {way: start[way.rpartition(" ")[2]] for way in ways}
    whole_s = {way: each + start_of[way] for way, each in least_s.items()}
    return [
        {
            "way": way,
            "lost": ours.lost,
            "us": 1e6 * each / images,
            "cimba_over_it": least_s["cimba"] / each,
            "start_s": start_of[way],
            "cimba_over_it_with_start": whole_s["cimba"] / whole_s[way],
            "worst_difference_ms": worst_ms,
        }
        for way, each in least_s.items()
    ]


COLUMNS = {
    "us an image": ("us", ".3f"),
    "cimba / it": ("cimba_over_it", ".1f"),
    "start, s": ("start_s", ".2f"),
    "with start": ("cimba_over_it_with_start", ".1f"),
    "worst difference, ms": ("worst_difference_ms", ".1g"),
}


def table_of(title: str, rows: list[dict[str, object]]) -> Table:
    """Table of the ways beside cimba."""
    table = Table(title=title)
    table.add_column("way")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in rows:
        cells = (f"{row[key]:{form}}" for key, form in COLUMNS.values())
        table.add_row(str(row["way"]), *cells)
    return table


def beside_cimba(images: int, repeats: int, seed: int) -> dict[str, list[dict[str, object]]]:
    """Rows of all ways, undisturbed and with failures; SystemExit where numba cannot compile."""
    if not (RECURRENCE.make() and EVENTS.make()):
        raise SystemExit("numba cannot compile here")
    workload, poisson = eight_boards(), Poisson(PER_S)
    late = replace(workload, deadline_ms=DEADLINE_MS)
    starts_ms = list(islice(poisson.times(random_stream(seed, "arrivals")), images))
    failing = [RenewalFailure((b.name,), MEAN_UP_MS, MEAN_DOWN_MS) for b in workload.boards]
    downs = down_times(failing, starts_ms[-1] + 1e6, seed)
    disturbed = Scenario(poisson, tuple(failing), on_failure="lose", seed=seed)
    worlds = {
        "undisturbed": (workload, Scenario(poisson, seed=seed), None),
        "failures, deadline, losses": (late, disturbed, downs),
    }
    return {
        name: rows_of(work, world, CimbaFanOut(work, starts_ms, fails), images, repeats)
        for name, (work, world, fails) in worlds.items()
    }


def tables_of(found: dict[str, list[dict[str, object]]], images: int) -> Iterator[Table]:
    """Tables of what `beside_cimba` found, one for each scenario."""
    for name, rows in found.items():
        lost = f", {rows[0]['lost']} lost" if rows[0]["lost"] else ""
        title = f"Beside cimba {version('cimba')}, {name}: {images:,} images{lost}, processor time"
        yield table_of(title, rows)


def main(
    images: Annotated[int, typer.Option(help="Images of a run.")] = 100_000,
    repeats: Annotated[int, typer.Option(help="Runs of each; the quickest counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    seed: int = 0,
) -> None:
    """Simulate the same fan-out with cimba and here, and compare latencies and times."""
    found, console = beside_cimba(images, repeats, seed), Console()
    if as_json:
        console.print_json(json.dumps({"cimba": version("cimba"), **found}))
        return
    for table in tables_of(found, images):
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
