"""Questions with best-known values, solved within one limit; writes docs/planner-instances.md.

    python benchmarks/instances.py                                 all; writes the page
    python benchmarks/instances.py 08x40 --limit 60 --take-over    better values go into the files
    python benchmarks/instances.py 16x16-latency --unpack made     a question's files, its command
    python benchmarks/instances.py --draw                          questions that have no file yet

Certificates are sought for what is taken over, not for the page.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from instance_drawing import DRAWINGS
from known_instance import FOLDER, PROOFS, Instance, Known, KnownStudent, Proof, instances
from rich.console import Console

from nonn_common.document import write_atomic
from nonn_common.errors import UnprovenError
from planner.certificates.verification import verify_plan
from planner.plan_file.plan_document import LevelResult, PlanDocument
from planner.problem.goals import MAXIMISED
from planner.solve import SOLVER, VERSION, solve
from planner.solvers.certificate_search import with_certificates

PAGE = Path(__file__).parent.parent / "docs" / "planner-instances.md"
LIMIT = 10.0
"""Deterministic time for one instance, about seconds."""
OPTIMAL_GAP_PCT = 1e-4
"""Gaps that the solver's rounding can hide count as none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer within the limit, beside the best-known one.

    `gap_pct` is to the best-known value, `open_pct` to what the run has proven; None for unknown.
    """

    instance: str
    objective: str
    best_known: str
    known_proof: str
    found: str
    gap_pct: float | None
    proof: str
    open_pct: float | None
    units: float | None


def differing(
    found: Sequence[LevelResult], known: Sequence[LevelResult]
) -> tuple[LevelResult, LevelResult, float] | None:
    """First stage with another best value: both results, and by how many percent it is worse."""
    for one, other in zip(found, known, strict=True):
        sign = -1 if one.objective in MAXIMISED else 1
        worse_pct = 100 * sign * (one.best - other.best) / max(abs(other.best), 1e-9)
        if abs(worse_pct) > OPTIMAL_GAP_PCT:
            return one, other, worse_pct
    return None


def proof_of(plan: PlanDocument) -> Proof:
    """Proof that a plan stands on, with its certificates; raises SystemExit for an untruth."""
    checked = verify_plan(plan.question, plan.model_dump(mode="json"))
    if checked.untrue:
        raise SystemExit(f"{plan.question.fleet.name}: {checked.untrue[0]}")
    if plan.status == "feasible":
        return "best known"
    stages = max(1, len(plan.stages))
    all_certified = [one.standing for one in checked.stages] == ["certified"] * stages
    return "certified" if all_certified else "proven"


def values(plan: PlanDocument) -> str:
    """Best values of all stages, for people."""
    return ", ".join(f"{one.best:,.7g}" for one in plan.stages) or "no plan"


def answered(instance: Instance, limit: float) -> PlanDocument | None:
    """Solve an instance; None where the limit leaves neither plan nor proof."""
    asked = instance.problem.model_copy(update={"deterministic_limit": limit})
    try:
        return solve(asked)
    except UnprovenError:
        return None


def contradiction(plan: PlanDocument, known: Known) -> str | None:
    """Say how a plan and the best-known answer cannot both be right."""
    if bool(plan.students) is not bool(known.students):
        proven = plan.status == "infeasible" or known.proof != "best known"
        return "one has a plan, and the other a proof that there is none" if proven else None
    for one, other, worse_pct in filter(None, [differing(plan.stages, known.stages)]):
        better, worse = (other, one) if worse_pct > 0 else (one, other)
        sign = -1 if one.objective in MAXIMISED else 1
        # What is proven is the bound: a plan may be better by what rounding hides.
        if worse.proven and worse.bound is not None and sign * (better.best - worse.bound) < 0:
            return f"{one.objective}: {better.best:g}, and {worse.bound:g} is proven to be the best"
    return None


def improvement(plan: PlanDocument, known: Known | None, proof: Proof) -> str | None:
    """Say what an answer has that the best-known one lacks; None for nothing."""
    if known is None:
        return "the first answer"
    if plan.students and (other := differing(plan.stages, known.stages)):
        return (
            f"{other[0].objective} {other[1].best:g} becomes {other[0].best:g}"
            if (other[2] < 0)
            else None
        )
    if PROOFS.index(proof) > PROOFS.index(known.proof):
        return f"{known.proof} becomes {proof}"
    pairs = zip(plan.stages, known.stages, strict=True)
    closer = [one for one, other in pairs if gap(one) < gap(other) - OPTIMAL_GAP_PCT]
    return f"{closer[0].objective}: its gap becomes {gap(closer[0]):.3g} %" if closer else None


def widest(plan: PlanDocument) -> float:
    """The largest gap of a plan's stages, in percent."""
    return max(map(gap, plan.stages), default=0.0)


def gap(stage: LevelResult) -> float:
    """Gap of a stage in percent; infinite without a bound."""
    return math.inf if stage.gap_pct is None else stage.gap_pct


def taken_over(instance: Instance, plan: PlanDocument, proof: Proof, limit: float) -> Instance:
    """The instance with a plan as its best-known answer."""
    students = tuple(
        KnownStudent(
            communities=one.communities,
            network=one.network,
            precision=one.precision,
            boards=one.boards,
            round=one.round,
        )
        for one in plan.students
    )
    known = Known(
        proof=proof,
        by=f"nonn-plan {version('nonn-plan')}, {SOLVER} {VERSION}, limit {limit:g}",
        stages=plan.stages,
        students=students,
        dropped=plan.dropped,
        group0=(plan.group0.board, plan.group0.precision) if plan.group0 else None,
        send_order=plan.send_order,
        inversion=plan.question.inversion,
        conflict=plan.conflict,
        refutation=plan.refutation,
    )
    return instance.model_copy(update={"known": known})


def measured(instance: Instance, limit: float, take_over: bool, say: Console) -> Answer:
    """Answer an instance, compare, and take an improvement over where that is asked for.

    Certificates are sought for what may be taken over.
    """
    plan, known = answered(instance, limit), instance.known
    proof: Proof = "proven" if plan and plan.status != "feasible" else "best known"
    if plan and take_over and (known is None or known.proof != "certified"):
        plan = with_certificates(plan)
        proof = proof_of(plan)
    if plan and known and (wrong := contradiction(plan, known)):
        raise SystemExit(f"{instance.name}: {wrong}; one of them is wrong")
    if plan and (better := improvement(plan, known, proof)):
        done = "taken over" if take_over else "to take it over: --take-over"
        say.print(f"{instance.name}: {better}; {done}")
        if take_over:
            instance = taken_over(instance, plan, proof, limit)
            instance.save()
            known = instance.known
    gap_pct = None
    if plan and known:
        other = differing(plan.stages, known.stages) if plan.students else None
        gap_pct = other[2] if other else 0.0
    return Answer(
        instance=instance.name,
        objective=str(instance.options["objective"]),
        best_known=values(instance.plan) if known else "",
        known_proof=known.proof if known else "",
        found=values(plan) if plan else "nothing",
        gap_pct=gap_pct,
        proof=proof,
        open_pct=None if plan is None or math.isinf(open_pct := widest(plan)) else open_pct,
        units=plan.solver.deterministic_time if plan else None,
    )


COLUMNS = ("instance", "stages", "best known", "stands on", "gap, %", "this run", "units")


def own_standing(answer: Answer) -> str:
    """Proof of a run's own answer, or how far it is from one."""
    if answer.units is None or answer.proof != "best known":
        return answer.proof if answer.units is not None else ""
    return "no bound" if answer.open_pct is None else f"within {answer.open_pct:.1f} %"


def section(answers: Sequence[Answer], limit: float) -> str:
    """Markdown section of this version."""
    rows = [
        (
            one.instance,
            one.objective.replace(",", ", "),
            one.best_known,
            one.known_proof,
            "no answer" if one.gap_pct is None else f"{round(one.gap_pct, 2) + 0.0:.2f}",
            own_standing(one),
            "" if one.units is None else f"{one.units:.2f}",
        )
        for one in answers
    ]
    table = (COLUMNS, ("---", "---", "---:", "---", "---:", "---", "---:"), *rows)
    reached = sum(one.gap_pct is not None and one.gap_pct <= 0 for one in answers)
    proven = sum(one.proof != "best known" for one in answers)
    lines = [
        f"## nonn-plan {version('nonn-plan')}",
        "",
        f"{SOLVER} {VERSION}, one worker, limit {limit:g}. {reached} of {len(answers)} reach "
        f"the best known, {proven} are proven.",
        "",
        *(f"| {' | '.join(row)} |" for row in table),
    ]
    return "\n".join(lines) + "\n"


HEAD = """# Instances with best-known values

Written by `python benchmarks/instances.py` from the files of
[benchmarks/instances](../benchmarks/instances). A name says how many boards and communities there
are; `small` questions have no plan. There are as many students as boards (`copies`: 3 or 4,
`own-board`: 4, `1to8`: one to eight). Boards are unlike, drawn by a seed; `free` questions have a
copy of G0 for each student and no balance; with `medium` all boards share one medium.

A file holds partition, fleet and options, and the best-known plan with the bound of each stage:
`certified` by prices that are checked without a solver, `proven` by the solver alone, or only `best
known`. Values are those of the stages in order. The gap is that of the first stage whose best value
differs; units are deterministic time. `--unpack FOLDER` writes the question's files and its
best-known plan, and prints the command; a better value enters a file by `--take-over` alone, which
says so.
"""


def write_page(answers: Sequence[Answer], limit: float) -> None:
    """Write this version's section into the page; sections of other versions stay."""
    own = section(answers, limit)
    title = own.partition("\n")[0]
    old = PAGE.read_text().split("\n## ")[1:] if PAGE.exists() else []
    others = [f"## {text.rstrip()}\n" for text in old if not f"## {text}".startswith(f"{title}\n")]
    write_atomic(PAGE, "\n".join((HEAD, own, *others)).encode())


def unpack(instance: Instance, folder: Path, say: Console) -> None:
    """Write the files of a question and its best-known plan; print the command."""
    instance.partition.write(folder / "partition.json")
    instance.fleet.write(folder / "fleet.json")
    instance.plan.write(folder / "known.json")
    say.print(instance.command, soft_wrap=True, highlight=False)


def write_drawn(say: Console) -> None:
    """Write the questions that have no file yet."""
    for drawing in DRAWINGS:
        if not (FOLDER / f"{drawing.name}.json").exists():
            drawing.instance().save()
            say.print(f"{drawing.name}: drawn")


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="How names begin; all for none.")
    ] = None,
    limit: Annotated[float, typer.Option(help="Deterministic time for each.")] = LIMIT,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Put better answers into the files.")
    ] = False,
    unpack_to: Annotated[
        Path | None, typer.Option("--unpack", help="Folder for the files of one question.")
    ] = None,
    draw: Annotated[bool, typer.Option("--draw", help="Write new questions.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; write no page.")] = False,
) -> None:
    """Solve all instances; write the page where none was named."""
    console, progress = Console(), Console(stderr=True)
    if draw:
        write_drawn(console)
        return
    chosen = instances(names or ())
    if unpack_to:
        unpack(next(chosen), unpack_to, console)
        return
    answers = [measured(one, limit, take_over, progress) for one in chosen]
    if as_json:
        print(json.dumps([asdict(one) for one in answers], indent=2))
        return
    print(section(answers, limit))
    if not names:
        write_page(answers, limit)
        console.print(f"written to {PAGE}")


if __name__ == "__main__":
    typer.run(main)
