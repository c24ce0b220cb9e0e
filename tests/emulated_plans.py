"""Small plans on made fleets, with bundles of their students, for tests of emulated fleets."""

from pathlib import Path

from made_bundle import make_bundle

from nonn_core.partition import Partition
from planner.data.modes import AssignedStudent
from planner.plan_file.evaluation import (
    PlanEvaluation,
    evaluate_decision,
)
from planner.plan_file.plan_document import LevelResult, PlanDocument, SolverRun
from planner.problem.budgets import board_budgets
from planner.problem.problem import Problem
from profiles.fleet import Fleet
from profiles.link import LINKS

NETWORK = "wrn10:4,8,8"


def figure(value):
    return {"value": value, "provenance": "assumed", "source": "this test"}


def made_fleet(links, compute_ms=5.0, message_ms=0.0, sharing_slowdown=1.0):
    """Boards b0, b1, ... on links `{field: figure}`; all of one device that takes `compute_ms`.

    A link may also be the name of one in the library.
    """
    device = {
        "name": "made",
        "title": "made",
        "clock_hz": 1,
        "cores": 1,
        "ram_bytes": 10**9,
        "runtime": "none",
        "precision": "fp32",
        "compute_fixed_ms": figure(compute_ms),
        "compute_ms_per_mmac": figure(0.0),
        "power_fixed_w": figure(1.0),
        "power_busy_w": figure(1.0),
        "message_ms": figure(message_ms),
        "sharing_slowdown": figure(sharing_slowdown),
    }
    named = [link if isinstance(link, str) else link["name"] for link in links]
    own = {link["name"]: link for link in links if not isinstance(link, str)}
    assert all(name in own or name in LINKS.names() for name in named)
    return Fleet.check(
        {
            "name": "made",
            "title": "made",
            "boards": [
                {"name": f"b{number}", "device": "made", "link": name}
                for number, name in enumerate(named)
            ],
            "devices": [device],
            "links": [_link(**link) for link in own.values()],
        },
        "this test",
    )


def made_plan(fleet, boards=None, image="3x32x32", width=3, precisions=None, alone="", **asked):
    """One student for each entry of `boards`, the names of those that run it; one on each board.

    `precisions` are those of the students, fp32 unless given; `alone` is the board of G0, where it
    has its own; `asked` are further fields of the question.
    """
    placed = boards or [(board.name,) for board in fleet.boards]
    question = Problem.check(
        {
            "fleet": fleet,
            "budgets": board_budgets(fleet),
            "image": image,
            "classes": 10,
            "networks": (NETWORK,),
            "epsilon_pct": 1.0,
            "objective": ({"objective": "students"},),
            "max_copies": max(map(len, placed)),
            "partition": _partition(len(placed), width),
            "group0": "own-board" if alone else "replicated",
            "precisions": tuple(dict.fromkeys(precisions or ("fp32",))),
            **asked,
        },
        "this test",
    )
    places = {board.name: place for place, board in enumerate(fleet.boards)}
    students = {
        f"student-{k}": AssignedStudent(
            (k,),
            NETWORK,
            precisions[k] if precisions else "fp32",
            places[home],
            copies=tuple(places[one] for one in copies),
        )
        for k, (home, *copies) in enumerate(placed)
    }
    made = evaluate_decision(question, students, (), (alone, "fp32") if alone else None)
    used = {board for student in made.students for board in student.boards}
    order = tuple(board.name for board in fleet.boards if board.name in used)
    evaluation = PlanEvaluation(question, made, order)
    return PlanDocument(
        question=question,
        status="feasible",
        students=made.students,
        joint_models=made.joint,
        group0=made.group0,
        dropped=(),
        dropped_filters=0,
        delta_val_pct=None,
        host=fleet.host,
        send_order=order,
        budgets=evaluation.budgets,
        predicted=evaluation.predicted,
        stages=(
            LevelResult(
                objective="students",
                tolerance_pct=0.0,
                value=len(made.students),
                best=len(made.students),
                bound=None,
                gap_pct=None,
                proven=False,
            ),
        ),
        solver=SolverRun(name="none", version="0", seed=0, deterministic_time=0.0),
        conflict=(),
    )


def bundle_of(plan: PlanDocument, folder: Path, joint=None) -> Path:
    """Write a bundle of random students with the names and widths of the plan's.

    `joint` are the models of several students that it has of all that the plan asks for: all.
    """
    image = plan.question.image_shape
    places = {student.name: place for place, student in enumerate(plan.students)}
    make_bundle(
        folder,
        filters=tuple(len(student.filters) for student in plan.students),
        image=(image.channels, image.height, image.width),
        alone=plan.group0 is not None,
        joint={
            name: tuple(places[member] for member in members)
            for name, members in plan.joint_students.items()
            if joint is None or name in joint
        },
    )
    return folder


def _link(name, bits_per_s=1e8, duplex="full", shared=False, **figures):
    return {
        "name": name,
        "title": name,
        "bits_per_s": figure(bits_per_s),
        "duplex": duplex,
        "shared": shared,
        **{key: figure(value) for key, value in figures.items()},
    }


def _partition(count, width):
    return Partition.check(
        {
            "teacher": None,
            "rule": None,
            "gamma": 1.0,
            "seed": 0,
            "filters": count * width,
            "images": None,
            "modularity": 0.0,
            "communities": [
                {"id": k, "filters": range(k * width, (k + 1) * width), "linked": True}
                for k in range(count)
            ],
            "drop_steps": [
                {"communities": (), "filters": 0, "accuracy_pct": None, "delta_val_pct": None}
            ],
        },
        "this test",
    )
