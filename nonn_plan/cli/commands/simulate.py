"""`simulate`, `sweep`: a plan, a model or students on a fleet, with arrivals and failures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from nonn_common.document import check_picture
from nonn_common.errors import InputError, SimulationError
from nonn_common.units import FLOPS_PER_MAC, parse_ms
from nonn_core.networks.blueprint import ImageShape
from nonn_plan.api import read_plan
from nonn_plan.api import simulate as run
from nonn_plan.cli.output import UNCHANGED, Output, SimulationFiles
from nonn_plan.cli.parsers.options import AsJson, Seed, Sends, one_of
from nonn_plan.cli.parsers.workload import (
    ARRIVALS_HELP,
    MOST_STUDENTS,
    SPLITS_HELP,
    STUDENT_HELP,
    model_request,
    parse_arrivals,
    parse_failures,
    parse_throttling,
    plan_request,
    student_macs,
    students_request,
    teachers_alone,
    time_by_layers,
    with_quorum,
)
from nonn_plan.cli.views import simulation_report
from nonn_plan.cli.views.board_report import show_duty
from profiles.fleet import DEFAULT_HOST, Fleet, FleetBoard, resolve

if TYPE_CHECKING:
    from simulator.results.simulation_result import SimulationResult
    from simulator.results.statistics import Keep
    from simulator.scenario import Scenario
    from simulator.student_sweep import StudentSweep
    from simulator.task_graph import TaskGraph
    from simulator.workloads.fan_out import Sending

DEFAULT_IMAGES = 1000
"""Images where they come on their own and nobody says how many."""

IMAGE, CLASSES, FILTERS = "3x32x32", 10, 46


def simulate(
    plan_file: Annotated[
        Path | None, typer.Argument(metavar="PLAN", help="plan.json, as `plan` writes it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Instead of PLAN: one network, wrn40-4.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help=f"How --model is divided: {SPLITS_HELP}.")
    ] = None,
    student: Annotated[
        list[str] | None,
        typer.Option(
            "--student",
            help=f"Instead of PLAN: every student, {STUDENT_HELP}; or one each.",
        ),
    ] = None,
    students: Annotated[
        int | None, typer.Option("--students", min=1, help="How many; over the boards in turn.")
    ] = None,
    place: Annotated[
        list[str] | None,
        typer.Option("--place", help="Students per board instead: rpi-3b-1=2,odroid-xu4s-1=6."),
    ] = None,
    filters: Annotated[
        int | None,
        typer.Option("--filters", min=1, help=f"Features of each student; default {FILTERS}."),
    ] = None,
    fleet: Annotated[
        str | None,
        typer.Option("--fleet", help="Library name, file, or list: rpi-3b*2,rpi-4b@wifi"),
    ] = None,
    image: Annotated[str | None, typer.Option("--image", help=f"Default {IMAGE}.")] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", min=2, help=f"Default {CLASSES}.")
    ] = None,
    sends: Sends = "per-board",
    inferences: Annotated[
        int | None,
        typer.Option(
            "--inferences",
            min=1,
            max=1_000_000,
            help="Images; default 1, all of a CSV file, or "
            f"{DEFAULT_IMAGES} where they come on their own.",
        ),
    ] = None,
    arrivals: Annotated[
        str, typer.Option("--arrivals", help=f"When images come: {ARRIVALS_HELP}.")
    ] = "closed",
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            help="BOARD@500ms..900ms, or without repair BOARD@500ms; BOARD,BOARD@... fail as one.",
        ),
    ] = None,
    mttf: Annotated[
        list[str] | None,
        typer.Option(
            "--mttf",
            help="Mean time to failure of each board, 60s; BOARD=60s; BOARD,BOARD=60s fail as one.",
        ),
    ] = None,
    mttr: Annotated[
        list[str] | None, typer.Option("--mttr", help="Mean time to repair, as --mttf.")
    ] = None,
    throttle: Annotated[
        list[str] | None,
        typer.Option("--throttle", help="BOARD@2s=0.6: from 2 s on, 0.6 of its clock."),
    ] = None,
    on_failure: Annotated[
        str,
        typer.Option(
            "--on-failure", help="Work that a failure breaks off: wait for repair, or lose it."
        ),
    ] = "wait",
    spread: Annotated[
        bool,
        typer.Option("--spread", help="Draw each board's time per image, as its device spreads."),
    ] = False,
    needs: Annotated[
        int | None, typer.Option("--needs", min=1, help="Students that the host waits for.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="The host then uses what came: 40ms.")
    ] = None,
    accuracy: Annotated[
        Path | None,
        typer.Option(
            "--accuracy", help="evaluation.json of `evaluate`: accuracy of those that answer."
        ),
    ] = None,
    keep: Annotated[
        str,
        typer.Option("--keep", help="all, or totals: memory that does not grow with the images."),
    ] = "all",
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a trace for ui.perfetto.dev, t.json.")
    ] = None,
    gantt: Annotated[
        Path | None, typer.Option("--gantt", help="Draw the first images, picture.png.")
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option("-o", "--tables", help="Folder for tables as CSV and Parquet."),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Run a plan, a model or students on a fleet: latency, energy, queues, failures.

    With a plan also the teacher alone on each kind of board.
    """
    output = Output(as_json)
    outputs = SimulationFiles(trace, gantt, tables)
    kept = cast("Keep", one_of("--keep", keep, ("all", "totals")))
    outputs.check(kept)
    plan = None if plan_file is None else read_plan(plan_file)
    options = {
        "--split": split,
        "--students": students,
        "--place": place,
        "--filters": filters,
        "--fleet": fleet,
        "--image": image,
        "--classes": classes,
        "--sends": sends != "per-board",
    }
    sending = _sending(sends)
    _refuse_mixed(plan_file, model, student, options)
    shape = ImageShape.parse(image or IMAGE)
    if plan is not None:
        request = plan_request(plan, sending)
    elif model is not None:
        request = model_request(model, split, _fleet(fleet), shape, classes or CLASSES)
    else:
        request = students_request(
            student or (), students, filters or FILTERS, _fleet(fleet), shape, place or (), sending
        )
    request = with_quorum(
        request, needs, None if deadline is None else parse_ms(deadline, "--deadline")
    )
    graph = request.graph()
    scenario = _scenario(
        graph, arrivals, (fail or (), mttf or (), mttr or ()), throttle or (), on_failure, seed
    )
    scenario = replace(scenario, spread=spread)
    images = _images(inferences, scenario)
    with output.progress(UNCHANGED) as progress:
        result = run(graph, images, scenario, kept, lambda done: progress("images", done, images))
    alone = {} if plan is None else {name: run(one) for name, one in teachers_alone(plan).items()}
    accuracy_pct = None if accuracy is None else _accuracy_pct(result, accuracy)
    simulation_report.show_simulation(output, result, alone, request, accuracy_pct)
    show_duty(output, plan)
    if came_from := getattr(scenario.arrivals, "source", None):
        output.say(f"arrivals: {images} of {came_from}")
    output.warn(*result.warnings, *(simulation_report.unknown_spread(graph) if spread else ()))
    output.warn(*simulation_report.unknown_energy(graph))
    written, left_out = outputs.write(result), outputs.left_out()
    for sentence in (*(f"written to {path}" for path in written), *left_out):
        output.say(sentence)
    if as_json:  # a row for each step of each image is much, for nobody
        output.result(
            {
                "plan" if plan is not None else "simulation": result.to_dict(),
                "workload": request.title,
                "latency_model": dict(request.latency_model),
                "accuracy_pct": accuracy_pct,
                "join_spread": simulation_report.join_spread_of(request),
                "arrivals": came_from or arrivals,
                "duty": plan.duty.model_dump() if plan is not None and plan.duty else None,
                "teacher_alone": {name: result.to_dict() for name, result in alone.items()},
                "written": [str(path) for path in written],
                "left_out": list(left_out),
            }
        )


def _refuse_mixed(
    plan_file: Path | None,
    model: str | None,
    student: Sequence[str] | None,
    options: Mapping[str, object],
) -> None:
    """Refuse several workloads or none, and options of another workload."""
    named = {"PLAN": plan_file, "--model": model, "--student": student}
    stated = [name for name, value in named.items() if value]
    if len(stated) != 1:
        raise InputError(
            "what is to be simulated?",
            found=" and ".join(stated) or None,
            allowed="one of PLAN, --model NETWORK or --student NETWORK",
        )
    fitting = {
        "PLAN": ("--sends",),
        "--model": ("--split", "--fleet", "--image", "--classes"),
        "--student": ("--students", "--place", "--filters", "--fleet", "--image", "--sends"),
    }[stated[0]]
    for option, value in options.items():
        if value and option not in fitting:
            raise InputError(f"{option} is not for {stated[0]}", allowed=", ".join(fitting) or None)


def _fleet(text: str | None) -> str:
    if text is None:
        raise InputError("--fleet is needed: which boards?", allowed="rpi3x8, rpi-3b*2, fleet.yaml")
    return text


def _sending(text: str) -> "Sending":
    from simulator.workloads.fan_out import Sending

    return cast("Sending", one_of("--sends", text, get_args(Sending)))


def _scenario(
    graph: "TaskGraph",
    arrivals: str,
    failures: tuple[Sequence[str], Sequence[str], Sequence[str]],
    throttle: Sequence[str],
    on_failure: str,
    seed: int,
) -> "Scenario":
    from simulator.scenario import OnFailure, Scenario

    boards = [node.name for node in graph.nodes]
    computing = [board for board in boards if board in graph.computing]
    return Scenario(
        arrivals=parse_arrivals(arrivals),
        failures=parse_failures(*failures, boards),
        throttling=parse_throttling(throttle, computing),
        on_failure=cast("OnFailure", one_of("--on-failure", on_failure, get_args(OnFailure))),
        seed=seed,
    )


def _images(inferences: int | None, scenario: "Scenario") -> int:
    from simulator.scenario import ClosedLoop, Times

    if isinstance(scenario.arrivals, Times):
        there = len(scenario.arrivals.ms)
        if inferences is not None and inferences > there:
            raise InputError("--inferences", found=inferences, allowed=f"{there} in the CSV file")
        return inferences or there
    return inferences or (1 if isinstance(scenario.arrivals, ClosedLoop) else DEFAULT_IMAGES)


def _accuracy_pct(result: "SimulationResult", path: Path) -> float:
    """Mean accuracy of the answers, by the table of `evaluate`."""
    from nonn_core.accuracy_report import Evaluation

    table = {frozenset(row.students): row.accuracy_pct for row in Evaluation.read(path).subsets}
    try:
        return result.accuracy_pct(table)
    except SimulationError as error:
        raise InputError(str(error), where=str(path)) from None


def sweep(
    slow: Annotated[str, typer.Option("--from", help="Device that students leave: rpi-3b.")],
    fast: Annotated[str, typer.Option("--to", help="Device that they move to: odroid-xu4s.")],
    student: Annotated[str, typer.Option("--student", help=f"Every student: {STUDENT_HELP}.")],
    students: Annotated[
        int, typer.Option("--students", min=1, max=MOST_STUDENTS, help="How many there are.")
    ] = 8,
    filters: Annotated[
        int, typer.Option("--filters", min=1, help="Features that each student returns.")
    ] = 46,
    image: Annotated[str, typer.Option("--image", help="What the host sends.")] = "3x32x32",
    link: Annotated[
        str | None, typer.Option("--link", help="Link of every board; default: the devices' own.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Device that joins.")] = DEFAULT_HOST,
    sends: Sends = "per-board",
    table: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the sweep as CSV or Parquet.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the sweep, picture.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move students, one by one, from boards of one device to one board of another.

    Figure 7 of arXiv:1907.11804, whose students have 167 MFLOPs, is
    sweep --from rpi-3b --to odroid-xu4s --student 167M --sends per-student --plot figure-7.png
    """
    from simulator.results.tables import GET_PARQUET, HAS_PARQUET, check_table
    from simulator.student_sweep import (
        SweepPoint,
        least_total_at,
        write_sweep_plot,
        write_sweep_table,
    )

    output = Output(as_json)
    if table is not None and plot is not None and table.absolute() == plot.absolute():
        raise InputError("two outputs of one name", found=str(plot))
    if table is not None:
        check_table(SweepPoint, table)
    if table is not None and table.suffix == ".parquet" and not HAS_PARQUET:
        raise InputError(
            "no Parquet without pyarrow", where="-o", found=str(table), fix=GET_PARQUET
        )
    if plot is not None:
        check_picture(plot)
    form = ImageShape.parse(image)
    macs = student_macs(student, form, filters)
    move = _move(slow, fast, link, host, (students, macs, filters, form.size_bytes))
    times = [time_by_layers(student, one, form, filters) for one in (move.slow, move.fast)]
    move = replace(move, sending=_sending(sends), slow_time=times[0], fast_time=times[1])
    moved = move.points()
    least = least_total_at(moved)
    simulation_report.show_sweep(output, move, moved, least)
    if table is not None:
        write_sweep_table(moved, table)
    if plot is not None:
        write_sweep_plot(move, moved, plot)
    for path in filter(None, (table, plot)):
        output.say(f"written to {path}")
    output.result(
        {
            "student_flops": FLOPS_PER_MAC * macs,
            "sends": sends,
            "timing": {device.name: how for device, how in move.timing},
            "least_total_ms_at": least,
            "rows": [row.to_dict() for row in moved],
        }
    )


def _move(
    slow: str, fast: str, link: str | None, host: str, work: tuple[int, int, int, int]
) -> "StudentSweep":
    from simulator.student_sweep import StudentSweep

    devices = {"slow": slow, "fast": fast}
    boards = tuple(FleetBoard(name=n, device=d, link=link) for n, d in devices.items())
    fleet = Fleet(name="sweep", title="sweep", host=host, boards=boards)
    hosting, found = resolve(fleet)
    links = [board.link.name for board in found]
    if links[0] != links[1]:
        raise InputError(
            "--link is needed: the two devices have different links of their own",
            found=f"{slow} on {links[0]}, {fast} on {links[1]}",
            allowed=" or ".join(links),
        )
    return StudentSweep(found[0].device, found[1].device, found[0].link, hosting, *work)
