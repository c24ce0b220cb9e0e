"""The plan file: the problem, the answer, its predicted cost, and the proof.

Written by `nonn-plan plan`; enough, on its own, to simulate, train and check.  Loads no solver.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, JsonValue

from nonn_common.document import Document, Record
from nonn_common.errors import InputError
from nonn_core.networks.blueprint import Filters
from nonn_core.networks.network_cost import Cost, Precision
from planner.accuracy import AccuracyEstimate
from planner.certificates import Certificate
from planner.data.balance import PartitionBalance
from planner.data.mode_costs import counted_copies
from planner.pipelines.segmentation import Segmentation
from planner.problem.budgets import BudgetName
from planner.problem.duty import Duty
from planner.problem.goals import Objective
from planner.problem.problem import Problem
from profiles.device import TimingMethod

AlternativeKind = Literal["nonn", "segmented", "compressed", "both", "teacher"]


class Alternative(Record):
    """One way to answer on these boards; figures are null without any."""

    kind: AlternativeKind = Field(
        description="nonn: as planned. compressed, both: one network, whole or cut by layers. "
        "segmented: the teacher cut. teacher: it alone where it is soonest, if it fits or not."
    )
    networks: tuple[str, ...] = Field(description="Its network, or that of each student.")
    status: Literal["feasible", "infeasible", "undecided"] = Field(
        description="infeasible: nothing of this kind is within the budgets, proven; undecided: "
        "not known, or too large a search."
    )
    reason: str | None = Field(default=None, description="Why it is not feasible.")
    boards: int | None = Field(default=None, ge=1, description="Boards that work.")
    total_ms: float | None = Field(default=None, ge=0, description="Latency of one image.")
    energy_fleet_mj: float | None = Field(
        default=None, ge=0, description="Computing energy of one image, all boards together."
    )
    energy_highest_mj: float | None = Field(
        default=None, ge=0, description="Computing energy of the board that spends most."
    )
    throughput_per_s: float | None = Field(
        default=None, gt=0, description="Images per second, many being under way."
    )
    params: int | None = Field(default=None, ge=0, description="Parameters, all boards together.")
    memory_highest_bytes: int | None = Field(
        default=None, ge=0, description="Weights and peak activations on the fullest board."
    )
    accuracy_pct: float | None = Field(
        default=None,
        description="The teacher's measured validation accuracy, or an estimate; null if unknown.",
    )
    accuracy_low_pct: float | None = Field(default=None, description="Low end of its 95 % range.")
    accuracy_high_pct: float | None = Field(default=None, description="High end of it.")
    on: str | None = Field(default=None, description="Board of the teacher alone.")
    robustness_pct: float | None = Field(
        default=None,
        description="Expected accuracy when boards fail, where the question says how; else null.",
    )
    segmentation: Segmentation | None = Field(default=None, description="Parts; null for a NoNN.")


class PlannedStudent(Record):
    """One student: its network, the knowledge it mimics, its board, and its exact cost."""

    name: str = Field(min_length=1, description="Name of the student.")
    network: str = Field(description="Network, one of the question's.")
    precision: Precision = Field(description="Storage of its weights and activations.")
    board: str = Field(description="Name of the board that runs it.")
    replicas: tuple[str, ...] = Field(
        default=(), description="Names of further boards that run it; its first reply counts."
    )
    communities: tuple[int, ...] = Field(min_length=1, description="Ids of its communities.")
    round: int = Field(
        default=1,
        ge=1,
        description="1: it mimics its communities. Later: as many filters as its community has, of "
        "all that are kept, reshuffled (arXiv:1907.11804, 5.1).",
    )
    filters: Filters = Field(min_length=1, description="Ids of the fconv filters it mimics.")
    params: int = Field(ge=0, description="Parameters; those of its G0, shared or not, included.")
    macs: int = Field(ge=0, description="Multiply-accumulates per image.")
    peak_elements: int = Field(ge=0, description="Most activation values alive at once.")
    memory_bytes: int = Field(
        ge=0, description="Bytes of parameters and peak activations at its precision."
    )

    @property
    def boards(self) -> tuple[str, ...]:
        """All boards that run it."""
        return (self.board, *self.replicas)


class BoardModel(Record):
    """One model on a board, and its exact cost."""

    board: str = Field(description="Name of the board.")
    precision: Precision = Field(description="Storage of its weights and activations.")
    params: int = Field(ge=0, description="Parameters.")
    macs: int = Field(ge=0, description="Multiply-accumulates per image.")
    peak_elements: int = Field(ge=0, description="Most activation values alive at once.")
    memory_bytes: int = Field(ge=0, description="Bytes of parameters and peak activations.")


class PlannedGroup0(BoardModel):
    """G0 on a board of its own, which runs nothing else, and its exact cost."""

    maps_bytes: int = Field(
        gt=0, description="Bytes of the maps, as fp32, that it sends to each board with a student."
    )

    @property
    def name(self) -> str:
        """Name among a bundle's models."""
        return "group0"

    @property
    def boards(self) -> tuple[str, ...]:
        """All boards that run it."""
        return (self.board,)


class JointModel(BoardModel):
    """One model of several students that share a board's copy of G0.

    G0's maps and all students' vectors stay alive while their parts run one after the other.
    """

    students: tuple[str, ...] = Field(min_length=2, description="Names of its students, in order.")


PlannedModel = PlannedStudent | PlannedGroup0
"""Model on a board: a student, or G0 by itself."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision of a plan with exact costs: students, P0, and G0 if alone.

    `copied` is the cost of the G0 that students of a board share, None where they do not.
    """

    students: tuple[PlannedStudent, ...]
    dropped: tuple[int, ...]
    group0: PlannedGroup0 | None
    copied: Cost | None = None
    joint: tuple[JointModel, ...] = ()

    @property
    def models(self) -> tuple[PlannedModel, ...]:
        """Models as they are trained: G0, where it is alone, and the students."""
        return (*([self.group0] if self.group0 else ()), *self.students)

    @property
    def used(self) -> frozenset[str]:
        """Names of the boards that run anything."""
        return frozenset(board for model in self.models for board in model.boards)

    @property
    def params(self) -> int:
        """Parameters, a board's G0 counted once, replicas of students not."""
        return self._known("params")

    @property
    def macs(self) -> int:
        """MACs per image, counted as parameters are."""
        return self._known("macs")

    def _known(self, figure: Literal["params", "macs"]) -> int:
        every = sum(int(getattr(model, figure)) for model in self.models)
        if self.copied is None:
            return every
        repeated = len(self.students) - counted_copies([one.boards for one in self.students])
        return every - repeated * int(getattr(self.copied, figure))

    def on(self, board: str) -> "tuple[PlannedModel | JointModel, ...]":
        """Models that a board runs: those by themselves, and joint ones."""
        joint = tuple(one for one in self.joint if one.board == board)
        taken = {name for one in joint for name in one.students}
        alone = (one for one in self.models if board in one.boards and one.name not in taken)
        return (*alone, *joint)

    @property
    def fleet_macs(self) -> int:
        """MACs per image of all boards together, replicas counted."""
        return sum(model.macs for board in self.used for model in self.on(board))

    @property
    def memory_bytes(self) -> int:
        """Bytes of parameters and peak activations of all boards together."""
        return sum(model.memory_bytes for board in self.used for model in self.on(board))

    @property
    def imbalance(self) -> int:
        """Filters of the largest student less those of the smallest."""
        sizes = [len(student.filters) for student in self.students]
        return max(sizes) - min(sizes)


class BudgetRow(Record):
    """Use of one budget by the students of one board."""

    board: str = Field(description="Name of the board.")
    budget: BudgetName = Field(description="Which budget; also its unit.")
    used: int | float = Field(
        ge=0, description="What the board's students, or G0 alone, and the runtime use."
    )
    limit: int | float | None = Field(description="The budget; null is no limit.")
    slack: int | float | None = Field(description="Limit minus used; null without a limit.")


class Prediction(Record):
    """Cost of one image by the simulator's closed form, without loss and jitter.

    The time that replies wait for each other on a shared medium is in it.
    """

    total_ms: float = Field(
        ge=0,
        description="Latency of one image; waiting on shared media is in it, loss and jitter of "
        "links are not.",
    )
    low_ms: float | None = Field(
        default=None,
        ge=0,
        description="The same with every board at the low end of its 90 % interval; null where no "
        "board's interval is known.",
    )
    middle_ms: float | None = Field(
        default=None,
        ge=0,
        description="The same with every board's time as predicted; null likewise. It is total_ms "
        "but where the question asks to plan for upper ends.",
    )
    high_ms: float | None = Field(
        default=None, ge=0, description="The same with every board at the upper end; null likewise."
    )
    expected_ms: float | None = Field(
        default=None,
        description="Mean latency over images where boards draw their times (compute_cv) and the "
        "join waits for the slowest; null where no spread is known, or no closed form.",
    )
    p95_ms: float | None = Field(
        default=None, description="Latency that 95 of 100 images keep then; null likewise."
    )
    compute_ms: float = Field(ge=0, description="Busy time of the board that computes longest.")
    communication_ms: float = Field(
        description="Total minus compute; without loss and jitter of links."
    )
    energy_per_node_mj: float | None = Field(
        ge=0,
        description="Mean computing energy of the boards that work, as in Table 7; null where the "
        "power of one of them is not known.",
    )
    energy_highest_mj: float | None = Field(
        ge=0, description="Energy of the board that spends most; null likewise."
    )
    energy_fleet_mj: float | None = Field(
        ge=0, description="Energy of all boards together; null likewise."
    )
    throughput_per_s: float = Field(
        gt=0, description="Images per second where they come as fast as they are served."
    )


class BoardTime(Record):
    """Computing time of one board for one image, and what predicted it."""

    board: str = Field(description="Name of the board.")
    how: tuple[TimingMethod, ...] = Field(
        min_length=1,
        description="per-layer: by the layers of its models; flop-affine: by FLOPs alone; both "
        "where it knows the layers of some models only.",
    )
    busy_ms: float = Field(ge=0, description="Computing time that the plan counts on.")
    low_ms: float | None = Field(
        ge=0, description="Low end of its 90 % interval; null where none is known."
    )
    high_ms: float | None = Field(ge=0, description="Upper end of it; null likewise.")


class LevelResult(Record):
    """Result of one level of the objective."""

    objective: Objective = Field(description="What was optimised.")
    tolerance_pct: float = Field(ge=0, description="What later stages may give up, in percent.")
    value: float = Field(description="Value of this plan; units as for the question's objective.")
    best: float = Field(description="Best value that this stage found, before later stages.")
    bound: float | None = Field(
        description="Proven: no plan that keeps earlier stages is better; null if none is known."
    )
    gap_pct: float | None = Field(
        ge=0, description="Distance from best to bound in percent of best; null without a bound."
    )
    proven: bool = Field(
        description="The solver proved `best` optimal, up to its rounding and, "
        "for a latency, to how much latencies of boards on one shared medium differ."
    )
    certificate: Certificate | None = Field(default=None, description="Proof of `bound`, if any.")


class SolverRun(Record):
    """Which solver answered; the same version and seed answer the same."""

    name: str = Field(description="Name of the solver.")
    version: str = Field(description="Version of the solver.")
    seed: int = Field(ge=0, description="Seed.")
    deterministic_time: float = Field(ge=0, description="Deterministic time of all stages.")


class PlanDocument(Document):
    """A question and its answer."""

    question: Problem = Field(description="What was asked.")
    status: Literal["optimal", "feasible", "infeasible"] = Field(
        description="optimal: every stage is proven; feasible: a plan without full proof; "
        "infeasible: proven that there is no plan."
    )
    students: tuple[PlannedStudent, ...] = Field(description="Students; empty if infeasible.")
    group0: PlannedGroup0 | None = Field(
        default=None, description="G0 on a board of its own; null where boards have copies."
    )
    joint_models: tuple[JointModel, ...] = Field(
        default=(), description="Models of several students, which share a board's copy of G0."
    )
    dropped: tuple[int, ...] = Field(description="Ids of the communities that nobody mimics, P0.")
    dropped_filters: int = Field(ge=0, description="Filters of these, |P0|.")
    delta_val_pct: float | None = Field(
        description="The teacher's measured change of validation accuracy without P0, in "
        "percentage points; null if unmeasured."
    )
    host: str | None = Field(default=None, description="Device that hosts; null if infeasible.")
    send_order: tuple[str, ...] = Field(
        description="Boards with students, in the order in which the host, or G0's board, sends."
    )
    budgets: tuple[BudgetRow, ...] = Field(description="Use and slack, per board and budget.")
    board_times: tuple[BoardTime, ...] = Field(
        default=(),
        description="Computing time of each board that works and what predicted it; empty where "
        "the question's timing is flop-affine, as all was then.",
    )
    predicted: Prediction | None = Field(description="Cost of one image; null if infeasible.")
    duty: Duty | None = Field(default=None, description="Power and battery life at the rate.")
    accuracy: AccuracyEstimate | None = Field(
        default=None,
        description="Predicted accuracy; null where the question says nothing of the teacher.",
    )
    balance: PartitionBalance | None = Field(default=None, description="Balance, if asked for.")
    alternatives: tuple[Alternative, ...] = Field(
        default=(),
        description="The NoNN, one network whole or cut by layers over the same boards, each at "
        "its best, and the teacher alone; empty where they were not compared.",
    )
    verdict: JsonValue = Field(default=None, description="Of old files; null in new ones.")
    stages: tuple[LevelResult, ...] = Field(description="The objective's stages, in order.")
    solver: SolverRun = Field(description="How the answer was found.")
    conflict: tuple[str, ...] = Field(
        description="If infeasible: requirements that cannot hold together, none of which can be "
        "left out; else empty."
    )
    refutation: Certificate | None = Field(default=None, description="Proof of no plan, if any.")

    @property
    def decision(self) -> Decision:
        """The decision of the plan."""
        sharing = self.students and self.group0 is None
        copied = self.question.copied_group0(self.students[0].network) if sharing else None
        return Decision(self.students, self.dropped, self.group0, copied, self.joint_models)

    @property
    def joint_students(self) -> dict[str, tuple[str, ...]]:
        """Names of the students of each joint model, by the model's name.

        Boards with the same of them have one model, of the name of the first that is sent to.
        """
        models = self.joint_models if self.question.group0_copies == "per-board" else ()
        found: dict[tuple[str, ...], str] = {}
        for one in sorted(models, key=lambda one: self.send_order.index(one.board)):
            several = sum(other.board == one.board for other in models) > 1
            name = f"students-of-{one.board}{f'-{one.precision}' * several}"
            found.setdefault(one.students, name)
        return {name: students for students, name in found.items()}


def require_students(plan: PlanDocument) -> None:
    """Refuse a plan that proves that there is none; raises InputError."""
    if not plan.students:
        raise InputError(
            "this plan has no students: its question is infeasible",
            allowed="a plan with status optimal or feasible",
            fix="relax a requirement that `nonn-plan explain` names and plan again",
        )
