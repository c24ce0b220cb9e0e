"""A workload as people type it: a plan, a model alone or split, students on a fleet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast, get_args

from nonn_core.costs import student_cost
from nonn_core.family import parse_network
from nonn_core.image import Image
from nonn_core.layer_table import student_table, teacher_table
from nonn_plan.typed_scenario import typed_as
from profiles.errors import InputError
from profiles.fleet import Board, parse_fleet, resolve
from profiles.layer import LayerTable
from profiles.layer_model import How, model_ms
from simulator.send_order import longest_first
from simulator.student_pace import by_layers
from simulator.workload import FanOut, StudentWork

if TYPE_CHECKING:
    from simulator.job import Job
    from simulator.splits import Split

SPLITS = "channels, slices, grid, tiles, cut or pipeline"
MOST_STUDENTS = 1000
TOLD = 9
"""How many boards a sentence names."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to simulate, its name for people, and what predicts the time of each device.

    `told` says in words how it is laid out; `tables` are the layers of students, by their names.
    """

    workload: "FanOut | Job"
    title: str
    latency_model: Mapping[str, How]
    told: str = ""
    tables: Mapping[str, LayerTable] = field(default_factory=dict)

    def job(self) -> "Job":
        """Return what one image sets off."""
        if not isinstance(self.workload, FanOut):
            return self.workload
        return by_layers(self.workload, self.tables) if self.tables else self.workload.job()


def model(name: str, split: str | None, fleet: str, image: Image, classes: int) -> Asked:
    """Return a model alone on the one board of `fleet`, or split over its boards."""
    from simulator import splits

    host, boards = resolve(parse_fleet(fleet))
    spec = parse_network(name)
    table = teacher_table(spec, image, classes)
    if split is not None and split not in get_args(splits.Split):
        raise InputError("--split", found=split, allowed=SPLITS)
    if split is None and len(boards) > 1:
        raise InputError(
            "--split is needed: how is the model divided?",
            where=f"--fleet {fleet} ({len(boards)} boards)",
            allowed=f"{SPLITS}; or a fleet of one board",
        )
    with typed_as(f"--split {split}" if split else "--model"):
        if split is None:
            job, told = splits.alone(table, boards[0]), f"alone on {boards[0].name}"
        else:
            found = splits.divided(cast("Split", split), table, boards, host)
            job, told = found.job, found.told
    computing = [node.device for node in job.nodes if node.name in job.computing]
    used = {device.name: device for device in computing}
    return Asked(
        job,
        f"{name}{f', {split}' if split else ''}",
        {device: model_ms(profile, table).how for device, profile in used.items()},
        told,
    )


def students(
    networks: Sequence[str],
    count: int | None,
    filters: int,
    fleet: str,
    image: Image,
    places: Sequence[str],
) -> Asked:
    """Return students on the boards of `fleet`, in turn or as `places` say."""
    host, boards = resolve(parse_fleet(fleet))
    homes = _homes(boards, count, len(networks), places)
    if len(networks) not in (1, len(homes)):
        raise InputError(
            "--student: one network for all students, or one for each",
            found=f"{len(networks)} networks for {len(homes)} students",
        )
    works = student_works(networks, homes, filters, image)
    fan_out = FanOut(
        host, boards, works, longest_first(boards, works), image_bytes=image.size_bytes
    )
    tables = {
        work.name: student_table(parse_network(networks[number % len(networks)]), image, filters)
        for number, work in enumerate(works)
    }
    return Asked(
        fan_out,
        f"{len(homes)} student{'s' * (len(homes) > 1)}",
        _latency_model(fan_out, tables),
        f"the host sends to {', '.join(fan_out.send_order[:TOLD])}"
        + (f" and {len(fan_out.send_order) - TOLD} more" if fan_out.send_order[TOLD:] else ""),
        tables,
    )


def _latency_model(fan_out: FanOut, tables: Mapping[str, LayerTable]) -> dict[str, How]:
    """Return what predicts each device: its layers only where it knows those of all students."""
    devices = {board.name: board.device for board in fan_out.boards}
    found: dict[str, How] = {}
    for student in fan_out.students:
        device = devices[student.board]
        how = model_ms(device, tables[student.name]).how
        if found.setdefault(device.name, how) != how:
            found[device.name] = "flop-affine"
    return found


def student_works(
    networks: Sequence[str], homes: Sequence[str], filters: int, image: Image
) -> tuple[StudentWork, ...]:
    """Return the work of a student per home; networks are taken in turn."""
    macs = [student_cost(parse_network(name), image, filters).macs for name in networks]
    return tuple(
        StudentWork(f"student-{number + 1}", home, macs[number % len(macs)], filters)
        for number, home in enumerate(homes)
    )


def joined(asked: Asked, needs: int | None, deadline_ms: float | None) -> Asked:
    """Return the workload whose host joins `needs` students, or what came by a deadline."""
    if needs is None and deadline_ms is None:
        return asked
    option = "--needs" if needs is not None else "--deadline"
    if not isinstance(asked.workload, FanOut):
        raise InputError(f"{option} is for students, each of which has an answer; not for a model")
    with typed_as(f"--needs {needs}"):
        return replace(
            asked, workload=replace(asked.workload, needs=needs, deadline_ms=deadline_ms)
        )


def _homes(
    boards: Sequence[Board], count: int | None, networks: int, places: Sequence[str]
) -> tuple[str, ...]:
    """Return the board of each student."""
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
