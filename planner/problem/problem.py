"""The problem: everything that a plan is asked for.

All that the answer depends on is in here, so that a plan, which embeds its problem, can be
checked, simulated and trained from its own file alone.  Loads no solver.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from nonn_common.document import Record
from nonn_common.units import LARGEST
from nonn_core.networks.blueprint import ImageShape, ImageShapeText, NetworkSpec
from nonn_core.networks.family import NetworkName, parse_network
from nonn_core.networks.network_cost import Cost, Precision, group0_cost
from nonn_core.partition import DropStep, Partition
from planner.accuracy.model import AccuracyModel
from planner.problem.budgets import BoardBudget
from planner.problem.duty import LEAST_PER_S, MOST_PER_S, check_duty, check_power
from planner.problem.goals import AccuracyBasis, Objective, ObjectiveLevel, Requirement
from planner.problem.trained_students import TrainedStudents
from planner.reliability.failures import Failures, check_boards
from profiles.device import DEVICES, DeviceProfile, End, at_end
from profiles.fleet import Board, Fleet
from profiles.layer import BYTES_PER_VALUE
from profiles.operating_point import resolved, timed_boards, timed_points

DEFAULT_OBJECTIVE = (
    ObjectiveLevel(objective="dropped"),
    ObjectiveLevel(objective="capacity", tolerance_pct=5.0),
    ObjectiveLevel(objective="imbalance"),
    ObjectiveLevel(objective="latency"),
)

BALANCED: Mapping[str, float] = {"balance_pct": 10.0, "inversion": 0}
"""Balance that new problems ask for, unless it is switched off."""


def _repeated_names(values: Sequence[str]) -> str:
    return ", ".join(value for value, count in Counter(values).items() if count > 1)


Timing = Literal["flop-affine", "per-layer", "upper-end"]
"""How times of models are predicted."""


class Problem(Record):
    """A planning question: boards, budgets, networks to choose from, knowledge, objective."""

    fleet: Fleet = Field(description="Host and boards.")
    budgets: tuple[BoardBudget, ...] = Field(description="One per board, in the fleet's order.")
    precisions: tuple[Precision, ...] = Field(
        default=("fp32",),
        min_length=1,
        description="How a student may store weights and activations on its board.",
    )
    hosts: tuple[str, ...] = Field(
        default=(), description="Devices that may be the host; the fleet's where none is named."
    )
    image: ImageShapeText = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    classes: int = Field(gt=1, le=1_000_000, description="Classes of the classifier.")
    networks: tuple[NetworkName, ...] = Field(
        min_length=1, description="Networks a student may be, e.g. wrn16:32,64,88."
    )
    min_students: int = Field(default=1, ge=1, le=1000, description="Fewest students.")
    max_students: int | None = Field(
        default=None, ge=1, le=1000, description="Most students; null: one per board."
    )
    reuse: bool = Field(
        default=False,
        description="Whether there may be more students than communities: each student then has "
        "one, and further ones mimic all kept filters, reshuffled (arXiv:1907.11804, 5.1).",
    )
    max_copies: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Most boards that may hold the same student, against failures; its first "
        "reply counts.",
    )
    group0: Literal["replicated", "own-board", "either"] = Field(
        default="replicated",
        description="G0: a copy on each board with a student, one board of its own, or whichever "
        "is better.",
    )
    group0_copies: Literal["per-board", "per-student"] = Field(
        default="per-student",
        description="Where boards have copies of G0: per-board, students of one board and "
        "precision share one, and are one model; per-student, each has its own, as published and "
        "as all had before there was a choice.",
    )
    failures: Failures | None = Field(
        default=None, description="What may fail, for robustness and reliability; null: nothing."
    )
    epsilon_pct: float = Field(
        ge=0,
        description="Bound on |delta_val|, and on the loss that validation images leave open, in "
        "percentage points, epsilon of Eq. 2; 0 for no P0.",
    )
    partition: Partition = Field(description="Communities and what may be dropped as P0.")
    accuracy: AccuracyBasis | None = Field(
        default=None, description="What predictions of accuracy rest on; null for none."
    )
    teacher: str | None = Field(default=None, description="Teacher file, for the recipe.")
    data: str | None = Field(default=None, description="Data set, for the recipe.")
    objective: tuple[ObjectiveLevel, ...] = Field(
        default=DEFAULT_OBJECTIVE, min_length=1, description="Stages, most important first."
    )
    requirements: tuple[Requirement, ...] = Field(
        default=(), description="What must hold of the whole plan."
    )
    rate_per_s: float | None = Field(
        default=None,
        ge=LEAST_PER_S,
        le=MOST_PER_S,
        description="Images per second that the plan is to answer, of which average power and "
        "battery life are told; a requirement of throughput is as high. Null: none is told.",
    )
    balance_pct: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="How far, in percent of the mean partition, the largest less the smallest may "
        "be above the least that whole communities allow for that number of students and what is "
        "dropped (|P1| ~ ... ~ |Pk| of Eq. 2); null: however far.",
    )
    inversion: int | None = Field(
        default=None,
        ge=0,
        le=LARGEST,
        description="Most filters that a wider student (more parameters beside its last layer) may "
        "have fewer than a narrower one; null: any number.",
    )
    timing: Timing = Field(
        default="flop-affine",
        description="How times of models are predicted. flop-affine: by their FLOPs alone, as all "
        "were before there was a choice. per-layer: layer by layer on each board that knows the "
        "layers, measured or by rates, else by FLOPs. upper-end: the same, at the upper end of "
        "each board's 90 % interval.",
    )
    deterministic_limit: float = Field(
        default=120.0,
        gt=0,
        description="Limit on the solver's deterministic time, all stages together; about one unit "
        "per second of one core, and the same on every machine.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the solver.")
    trained: TrainedStudents | None = Field(
        default=None, description="Trained students, for which boards are asked; null: none is."
    )

    @field_validator("precisions", mode="before")
    @classmethod
    def _precisions_are_exported(cls, precisions: object) -> object:
        if isinstance(precisions, Sequence) and "fp16" in precisions:
            raise ValueError(
                "fp16 is no precision of students: no engine of the boards computes in it, so that "
                "export would take twice the planned memory; plan with int8 or fp32"
            )
        return precisions

    @model_validator(mode="after")
    def _each_board_has_its_budget(self) -> Self:
        boards = [board.name for board in self.fleet.boards]
        if [budget.board for budget in self.budgets] != boards:
            raise ValueError(f"budgets must name each board once, in order: {', '.join(boards)}")
        return self

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> Self:
        if self.min_students > self.most_students:
            raise ValueError(
                f"min_students ({self.min_students}) is above max_students ({self.most_students})"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_named_twice(self) -> Self:
        every: Mapping[str, Sequence[str]] = {
            "network is named": self.networks,
            "precision is named": self.precisions,
            "objective is named": [level.objective for level in self.objective],
            "objective is bounded": [requirement.objective for requirement in self.requirements],
        }
        for what, names in every.items():
            if twice := _repeated_names(names):
                raise ValueError(f"each {what} once; repeated: {twice}")
        return self

    @model_validator(mode="after")
    def _hosts_can_host(self) -> Self:
        for name in self.hosts:
            if DEVICES.get(name, "field hosts").hosting is None:
                raise ValueError(f"{name} cannot be the host: its profile has no hosting figures")
        return self

    @model_validator(mode="after")
    def _accuracy_can_be_predicted(self) -> Self:
        named = self.goals
        resting = named & {"accuracy", "robustness", "reliability"}
        if resting and (self.accuracy is None or not self.accuracy.known):
            raise ValueError(
                "accuracy cannot be predicted: the teacher or its accuracy is not known"
            )
        if named & {"robustness", "reliability"} and self.failures is None:
            raise ValueError(f"{min(resting)} needs failures: how likely boards fail")
        if "reliability" in named and (self.failures is None or not self.failures.target_pct):
            raise ValueError("reliability needs a target: the accuracy that an answer should have")
        return self

    @model_validator(mode="after")
    def _one_latency_is_asked_for(self) -> Self:
        if {"latency", "latency-p95"} <= self.goals:
            raise ValueError(
                "latency and latency-p95 may want the boards in two orders: ask for one of them"
            )
        return self

    @model_validator(mode="after")
    def _latency_of_copies_is_known(self) -> Self:
        media = Counter(board.link.name for board in self.boards if board.link.shared)
        timed = self.goals & {"latency", "latency-p95"}
        if self.max_copies > 1 and timed and any(n > 1 for n in media.values()):
            raise ValueError(
                f"boards share the medium {max(media)}: the least latency of students with copies "
                "is not known there; ask for another objective, or for one copy of each"
            )
        return self

    @model_validator(mode="after")
    def _group0_can_be_alone(self) -> Self:
        if self.group0 == "replicated":
            return self
        if half := [board.name for board in self.boards if board.link.duplex == "half"]:
            raise ValueError(
                f"group0 {self.group0} needs full-duplex links, as no latency is known for others; "
                f"half duplex: {', '.join(half)}"
            )
        if self.group0 == "own-board" and len(self.boards) < 2:
            raise ValueError("group0 own-board needs a second board, for the students")
        if self.failures is not None or self.max_copies > 1:
            raise ValueError(
                f"group0 {self.group0} goes without copies and failures: nothing is answered where "
                "the one board of G0 is down"
            )
        return self

    @model_validator(mode="after")
    def _power_can_be_told(self) -> Self:
        asked = [self.counts_energy(site) for site in range(len(self.budgets))]
        check_power(self.points, self.budgets, asked, added="fleet-power" in self.goals)
        lives = self.points if "battery" in self.goals else ()
        over_time = [row for site, row in enumerate(self.points) if self.averages_power(site)]
        check_duty(self.rate_per_s, self.budgets, self.requirements, lives, over_time)
        return self

    @model_validator(mode="after")
    def _failing_boards_have_one_point(self) -> Self:
        if self.failures is not None:
            check_boards(self.failures, self.fleet)
        several = [row[0].name for row in self.points if len(row) > 1]
        if several and self.goals & {"robustness", "reliability"}:
            raise ValueError(
                "robustness and reliability are planned for boards whose operating points are "
                f"named; name those of {', '.join(several)}"
            )
        return self

    @property
    def goals(self) -> frozenset[Objective]:
        """Objectives and requirements, by which a plan is judged."""
        levels = (level.objective for level in self.objective)
        return frozenset((*levels, *(one.objective for one in self.requirements)))

    @property
    def boards(self) -> tuple[Board, ...]:
        """Boards of the fleet with their profiles; raises ProfileError for unknown ones."""
        return self.boards_at("high" if self.timing == "upper-end" else "middle")

    def boards_at(self, end: End) -> tuple[Board, ...]:
        """Boards whose times lie at an end of their intervals."""
        return timed_boards(self.fleet, end, by_layer=self.timing != "flop-affine")

    @property
    def points(self) -> tuple[tuple[Board, ...], ...]:
        """Each board at each operating point that it may run at."""
        end: End = "high" if self.timing == "upper-end" else "middle"
        return timed_points(self.fleet, end, by_layer=self.timing != "flop-affine")

    def counts_energy(self, board: int) -> bool:
        """Whether energy is asked of all boards, or of this one."""
        asked = self.goals & {"energy", "energy-node", "battery", "fleet-power"}
        limited = self.budgets[board].energy_mj is not None
        return bool(asked) or limited or self.averages_power(board)

    def averages_power(self, board: int) -> bool:
        """Whether average power is asked of all boards together, or of this one."""
        return self.budgets[board].average_w is not None or "fleet-average-power" in self.goals

    def at_end(self, end: End, board: str | None = None) -> "Problem":
        """The problem where one board, or each, is at an end of its interval.

        All others take what is predicted.
        """
        _, boards = resolved(self.fleet)
        moved = {
            one.device.name: at_end(one.device, end).model_copy(
                update={"name": f"{one.device.name} at its {end} end"}
            )
            for one in boards
            if one.device.layer_rates is not None and board in (None, one.name)
        }
        rows = tuple(
            row.model_copy(update={"device": moved[row.device].name, "points": "named"})
            if row.device in moved and board in (None, row.name)
            else row
            for row in self.fleet.boards
        )
        own = {"boards": rows, "devices": (*self.fleet.devices, *moved.values())}
        fleet = self.fleet.model_copy(update=own)
        return self.model_copy(update={"fleet": fleet, "timing": "per-layer"})

    @property
    def pipeline_boards(self) -> tuple[Board, ...]:
        """Boards as they run whole networks, of which layers were always known."""
        return resolved(self.fleet)[1] if self.timing == "flop-affine" else self.boards

    @property
    def fleet_host(self) -> DeviceProfile:
        """Host that the fleet names."""
        return resolved(self.fleet)[0]

    @property
    def most_students(self) -> int:
        """Most students; one per board where the problem does not say."""
        return self.max_students or len(self.fleet.boards)

    @property
    def most_filters(self) -> int:
        """Most filters of all students together, further rounds included, copies not counted."""
        communities = self.partition.communities
        if not self.reuse:
            return self.partition.filters
        fewest = min(
            len(communities) - len(step.communities)
            for step in self.partition.drop_steps
            if self.allows(step)
        )
        return -(-self.most_students // fewest) * self.partition.filters

    @property
    def accuracy_model(self) -> AccuracyModel:
        """The accuracy model; raises ValueError where the problem knows no teacher."""
        if self.accuracy is None:
            raise ValueError("the question says nothing of accuracy")
        return self.accuracy.model

    @property
    def smallest_precision(self) -> Precision:
        """The precision with the fewest bytes per value."""
        return min(self.precisions, key=BYTES_PER_VALUE.__getitem__)

    @property
    def image_shape(self) -> ImageShape:
        """The image, parsed."""
        return ImageShape.parse(self.image)

    def copied_group0(self, network: str) -> Cost | None:
        """Cost of such students' G0, where those of one board share it; else None."""
        if self.group0_copies == "per-student":
            return None
        return group0_cost(parse_network(network), self.image_shape)

    @property
    def specs(self) -> tuple[NetworkSpec, ...]:
        """The networks, parsed."""
        return tuple(parse_network(name) for name in self.networks)

    def allows(self, step: DropStep) -> bool:
        """Say whether this step costs less than epsilon (arXiv:1907.11804, Eq. 2).

        Its cost is |delta_val|, or the bound on the loss where that is more.  Where it was not
        measured, nothing may be dropped but the filters without any link, which the NoNN paper
        (section 4.2) removes without a loss.  Something must remain.
        """
        dropped = set(step.communities)
        if len(dropped) == len(self.partition.communities):
            return False
        if step.worst_pct is not None:
            return step.worst_pct < self.epsilon_pct or not dropped
        return dropped in (set(), self.unlinked)

    @property
    def unlinked(self) -> set[int]:
        """Ids of the communities without any link, g0 (arXiv:1907.11804, section 4.2)."""
        return {one.id for one in self.partition.communities if not one.linked}
