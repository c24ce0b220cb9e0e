"""A simulation as people type it: workload, arrivals, failures, throttling.

The workload is a plan, a model alone or split, or students on a fleet.  Every mistake is one
InputError that names the option.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from nonn_common.csv_table import is_csv
from nonn_common.errors import InputError
from nonn_common.units import parse_macs, parse_ms, parse_per_s
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_cost, teacher_table
from nonn_plan.cli.parsers.options import errors_name_option
from planner.plan_file.decision_workload import student_time
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import PlanDocument
from profiles.device import DeviceProfile, PredictedTime, TimingMethod, known_time, model_ms
from profiles.fleet import Board, parse_fleet, resolve_named
from simulator.workloads.fan_out import (
    FanOut,
    Sending,
    SingleModel,
    StudentWork,
    longest_first,
)

if TYPE_CHECKING:
    from simulator.scenario import Arrivals, Failure, Throttle
    from simulator.task_graph import TaskGraph
    from simulator.workloads.model_split import SplitName


SPLITS_HELP = "channels, slices, grid, tiles, cut or pipeline"
STUDENT_HELP = "a network, wrn16:32,64,88, or FLOPs per image, 167M"
MOST_STUDENTS = 1000
MOST_CLOCK_FACTOR = 10  # 60 is a percentage, mistyped
EACH = ", an image for each student"
MOST_BOARDS_NAMED = 9
"""How many boards a sentence names."""


@dataclass(frozen=True, slots=True)
class SimulationRequest:
    """A workload, its name for people, and each device's latency model.

    `description` says how it is laid out; `reached` are the boards that messages go to.
    """

    workload: "FanOut | TaskGraph"
    title: str
    latency_model: Mapping[str, TimingMethod]
    description: str = ""
    reached: tuple[Board, ...] = ()

    def graph(self) -> "TaskGraph":
        """Task graph of one image."""
        return self.workload.graph() if isinstance(self.workload, FanOut) else self.workload


def model_request(
    name: str, split: str | None, fleet: str, image: ImageShape, classes: int
) -> SimulationRequest:
    """Request of a model alone on the one board of `fleet`, or split."""
    from simulator.workloads import model_split

    host, boards = resolve_named(parse_fleet(fleet))
    spec = parse_network(name)
    table = teacher_table(spec, image, classes)
    if split is not None and split not in get_args(model_split.SplitName):
        raise InputError("--split", found=split, allowed=SPLITS_HELP)
    if split is None and len(boards) > 1:
        raise InputError(
            "--split is needed: how is the model divided?",
            where=f"--fleet {fleet} ({len(boards)} boards)",
            allowed=f"{SPLITS_HELP}; or a fleet of one board",
        )
    with errors_name_option(f"--split {split}" if split else "--model"):
        if split is None:
            graph, description = (
                model_split.single_board_graph(table, boards[0]),
                f"alone on {boards[0].name}",
            )
        else:
            found = model_split.split_model(cast("SplitName", split), table, boards, host)
            graph, description = found.graph, found.description
    computing = [node.device for node in graph.nodes if node.name in graph.computing]
    used = {device.name: device for device in computing}
    return SimulationRequest(
        graph,
        f"{name}{f', {split}' if split else ''}",
        {device: model_ms(profile, table).how for device, profile in used.items()},
        description,
        reached=() if split is None else boards,
    )


def students_request(
    networks: Sequence[str],
    count: int | None,
    filters: int,
    fleet: str,
    image: ImageShape,
    places: Sequence[str],
    sending: Sending = "per-board",
) -> SimulationRequest:
    """Request of students on the boards of `fleet`, in turn or by `places`."""
    host, boards = resolve_named(parse_fleet(fleet))
    homes = _homes(boards, count, len(networks), places)
    if len(networks) not in (1, len(homes)):
        raise InputError(
            "--student: one network for all students, or one for each",
            found=f"{len(networks)} networks for {len(homes)} students",
        )
    works = student_works(networks, homes, filters, image, boards)
    each_bytes = image.size_bytes if sending == "per-student" else None
    order = longest_first(boards, works, each_bytes)
    fan_out = FanOut(host, boards, works, order, image.size_bytes, sending=sending)
    sent = fan_out.send_order
    more = f" and {len(sent) - MOST_BOARDS_NAMED} more" if sent[MOST_BOARDS_NAMED:] else ""
    more += EACH * (sending != "per-board")
    return SimulationRequest(
        fan_out,
        f"{len(homes)} student{'s' * (len(homes) > 1)}",
        _latency_model(fan_out),
        f"the host sends to {', '.join(sent[:MOST_BOARDS_NAMED])}{more}",
        tuple(board for board in boards if board.name in homes),
    )


def _latency_model(fan_out: FanOut) -> dict[str, TimingMethod]:
    """Latency model of each device; flop-affine where that predicts some of its models."""
    devices = {board.name: board.device.name for board in fan_out.boards}
    methods: dict[str, TimingMethod] = {}
    for model in fan_out.models:
        method: TimingMethod = "flop-affine" if model.time is None else "per-layer"
        if methods.setdefault(devices[model.board], method) != method:
            methods[devices[model.board]] = "flop-affine"
    return methods


def student_works(
    networks: Sequence[str],
    homes: Sequence[str],
    filters: int,
    image: ImageShape,
    boards: Sequence[Board],
) -> tuple[StudentWork, ...]:
    """Work of a student per home, one of `boards`; networks are taken in turn."""
    macs = {name: student_macs(name, image, filters) for name in networks}
    devices = {board.name: board.device for board in boards}
    works = []
    for number, (home, name) in enumerate(zip(homes, cycle(networks), strict=False), start=1):
        time = time_by_layers(name, devices[home], image, filters)
        works.append(StudentWork(f"student-{number}", home, macs[name], filters, time))
    return tuple(works)


def time_by_layers(
    text: str, device: DeviceProfile, image: ImageShape, filters: int
) -> PredictedTime | None:
    """Time of a student on a device by its layers; None where unknown."""
    return None if _states_flops(text) else student_time(device, text, image, filters)


def student_macs(text: str, image: ImageShape, filters: int) -> int:
    """MACs per image of a student, given its network or its FLOPs; raises InputError."""
    if _states_flops(text):
        return parse_macs(text, f"--student {text}")
    return student_cost(parse_network(text), image, filters).macs


def _states_flops(text: str) -> bool:
    """Whether `text` is a number, as no name of a network begins."""
    return not text[:1].isalpha() and text != ""


def with_quorum(
    request: SimulationRequest, needs: int | None, deadline_ms: float | None
) -> SimulationRequest:
    """Workload whose host joins `needs` students, or all by a deadline."""
    if needs is None and deadline_ms is None:
        return request
    option = "--needs" if needs is not None else "--deadline"
    if not isinstance(request.workload, FanOut):
        raise InputError(f"{option} is for students, each of which has an answer; not for a model")
    with errors_name_option(f"--needs {needs}"):
        return replace(
            request, workload=replace(request.workload, needs=needs, deadline_ms=deadline_ms)
        )


def _homes(
    boards: Sequence[Board], count: int | None, networks: int, places: Sequence[str]
) -> tuple[str, ...]:
    """Board of each student."""
    if not places:
        number = networks if count is None else count
        if number > MOST_STUDENTS:
            raise InputError("--students", found=number, allowed=f"at most {MOST_STUDENTS}")
        return tuple(boards[i % len(boards)].name for i in range(number))
    known = [board.name for board in boards]
    homes: list[str] = []
    for text in ",".join(places).split(","):
        board, equals, value = text.strip().partition("=")
        if board not in known:
            raise InputError(
                "no such board", where=f"--place {text}", found=board, allowed=", ".join(known)
            )
        if (equals and not value.isdecimal()) or len(value) > len(str(MOST_STUDENTS)):
            raise InputError(
                "how many students?", where=f"--place {text}", found=value, allowed=f"{board}=2"
            )
        homes += [board] * (int(value) if equals else 1)
    if not homes or len(homes) > MOST_STUDENTS:
        raise InputError("--place", found=len(homes), allowed=f"1 to {MOST_STUDENTS} students")
    if count is not None and count != len(homes):
        raise InputError(
            "--students is not how many --place puts on boards",
            found=count,
            allowed=f"{len(homes)}",
        )
    return tuple(homes)


def plan_request(plan: PlanDocument, sending: Sending = "per-board") -> SimulationRequest:
    """Request of a plan's workload, with the times that the plan counts on.

    The plan's own host sends per board; `sending` per-student shows what more messages cost.
    """
    workload, used = plan_workload(plan), plan.decision.used
    each = sending == "per-student"
    workload = workload.per_student() if each else workload
    reached = tuple(board for board in workload.boards if board.name in used)
    title = f"the plan{EACH * each}{' and a G0' * (each and bool(plan.joint_models))}"
    return SimulationRequest(workload, title, _latency_model(workload), reached=reached)


def teachers_alone(plan: PlanDocument) -> dict[str, SingleModel]:
    """Teacher alone on each kind of device; none if its cost is unknown."""
    problem, teacher = plan.question, plan.question.partition.teacher
    if teacher is None or teacher.macs is None:
        return {}
    named, image, classes = teacher.network, problem.image_shape, problem.classes
    table = teacher_table(parse_network(named), image, classes) if named else ()
    devices = {board.device.name: board.device for board in problem.boards}
    return {
        name: SingleModel(device, teacher.macs, known_time(device, table))
        for name, device in devices.items()
    }


ARRIVALS_HELP = "closed, poisson:20/s, every:15ms, or a CSV file with a column start_ms"
_NOW = re.compile(r"\s*0+(\.0*)?\s*(us|ms|s|min|h)?\s*")


def parse_arrivals(text: str) -> "Arrivals":
    """Read `closed`, `poisson:20/s`, `every:15ms` or the name of a CSV file."""
    from simulator.scenario import ClosedLoop, Periodic, Poisson, Times

    where = f"--arrivals {text}"
    kind, colon, value = text.partition(":")
    with errors_name_option(where):
        if text == "closed":
            return ClosedLoop()
        if kind == "poisson" and colon:
            return Poisson(parse_per_s(value, where))
        if kind == "every" and colon:
            return Periodic(parse_ms(value, where))
        if is_csv(text):
            return Times.from_csv(Path(text))
    raise InputError("not a way in which images come", where=where, allowed=ARRIVALS_HELP)


def parse_failures(
    fails: Sequence[str], mttf: Sequence[str], mttr: Sequence[str], boards: Collection[str]
) -> "tuple[Failure, ...]":
    """Read --fail, --mttf and --mttr; `boards` are those that can fail."""
    return (
        *(_outage(text, boards) for text in fails),
        *_renewals(mttf, mttr, boards),
    )


def parse_throttling(texts: Sequence[str], boards: Collection[str]) -> "tuple[Throttle, ...]":
    """Read `BOARD@2s=0.6`: from 2 s on, 0.6 of the clock; raises InputError."""
    found: dict[tuple[str, float], Throttle] = {}
    for text in texts:
        one = _throttle(text, boards)
        if found.setdefault((one.board, one.at_ms), one) is not one:
            raise InputError("given twice for one board and moment", where=f"--throttle {text}")
    return tuple(found.values())


def parse_time_ms(text: str, where: str) -> float:
    """Read a moment such as `500ms`, `2s` or `0`."""
    return 0.0 if _NOW.fullmatch(text) else parse_ms(text, where)


def _outage(text: str, known: Collection[str]) -> "Failure":
    from simulator.scenario import TimedFailure

    where = f"--fail {text}"
    names, at, span = text.rpartition("@")
    if not at:
        raise InputError(
            "when does it fail?", where=where, allowed="BOARD@500ms or BOARD,BOARD@500ms..900ms"
        )
    start, dots, end = span.partition("..")
    with errors_name_option(where):
        return TimedFailure(
            _boards(names, where, known),
            parse_time_ms(start, where),
            parse_time_ms(end, where) if dots else None,
        )


def _renewals(
    mttf: Sequence[str], mttr: Sequence[str], known: Collection[str]
) -> "Iterator[Failure]":
    """Renewal failures, one per group; a time without boards is each board's own."""
    from simulator.scenario import RenewalFailure

    to_failure = _times("--mttf", mttf, known)
    to_repair = _times("--mttr", mttr, known)
    for group in to_repair.keys() - to_failure.keys() - {()}:
        raise InputError("no --mttf for these boards", where=f"--mttr {','.join(group)}=...")
    if to_repair and not to_failure:
        raise InputError("--mttr needs --mttf, the mean time to failure", allowed="--mttf 10s")
    every = to_failure.pop((), None)
    if every is not None:
        own = {board for group in to_failure for board in group}
        to_failure |= {(board,): every for board in sorted(known) if board not in own}
    for group, mttf_ms in to_failure.items():
        mttr_ms = to_repair.get(group, to_repair.get(()))
        if mttr_ms is None:
            raise InputError(
                "--mttr is needed beside --mttf: the mean time to repair",
                where=f"--mttf of {', '.join(group)}",
                allowed="--mttr 500ms",
            )
        yield RenewalFailure(group, mttf_ms, mttr_ms)


def _times(
    option: str, texts: Sequence[str], known: Collection[str]
) -> dict[tuple[str, ...], float]:
    """Read `10s`, or `BOARD,BOARD=10s`; the key of the former is ()."""
    times = {}
    for text in texts:
        where = f"{option} {text}"
        names, equals, value = text.rpartition("=")
        group = _boards(names, where, known) if equals else ()
        if group in times:
            raise InputError("given twice for the same boards", where=where)
        times[group] = parse_ms(value, where)
    return times


def _throttle(text: str, known: Collection[str]) -> "Throttle":
    from simulator.scenario import Throttle

    where = f"--throttle {text}"
    names, at, rest = text.rpartition("@")
    moment, equals, factor = rest.partition("=")
    try:
        share = float(factor)
    except ValueError:
        share = float("nan")
    if not (at and equals and 0 < share <= MOST_CLOCK_FACTOR):
        raise InputError(
            "not a change of a board's clock",
            where=where,
            allowed="BOARD@2s=0.6: 0.6 of its clock from 2 s on; no percentage, up to "
            f"{MOST_CLOCK_FACTOR}",
        )
    (board,) = _boards(names, where, known, most=1)
    with errors_name_option(where):
        return Throttle(board, parse_time_ms(moment, where), share)


def _boards(
    text: str, where: str, known: Collection[str], most: int | None = None
) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown or len(names) > (most or len(names)):
        raise InputError(
            "no such board has a part in this" if unknown else "one board at a time",
            where=where,
            found=", ".join(unknown) or text,
            allowed=", ".join(sorted(known)),
        )
    return tuple(sorted(set(names)))  # however they were put, the same boards
