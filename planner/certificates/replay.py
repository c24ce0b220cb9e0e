"""Replay of a plan file: each count once more, in whole numbers, from its question.

Knows no solver and nothing of the planner's models.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import (
    Cost,
    Precision,
    group0_cost,
    joint_cost,
    student_cost_line,
)
from planner.certificates import NOISE
from planner.problem.budgets import BoardBudget, BudgetName
from planner.problem.goals import MAXIMISED
from planner.problem.least_spread import PCT_UNITS, least_spread, most_spread, uneven_units
from planner.problem.problem import Problem
from profiles.layer import BYTES_PER_VALUE
from profiles.operating_point import computing_w


class _ModelLoad(NamedTuple):
    """Bytes, and MACs, of one model of a board."""

    memory_bytes: int
    flash_bytes: int
    ram_bytes: int
    macs: int

    @classmethod
    def of(cls, cost: Cost, precision: Precision) -> "_ModelLoad":
        """That of a cost at a precision."""
        flash_bytes, ram_bytes = cost.flash_bytes(precision), cost.ram_bytes(precision)
        return cls(flash_bytes + ram_bytes, flash_bytes, ram_bytes, cost.macs)

    @classmethod
    def listed(cls, model: Mapping[str, Any]) -> "_ModelLoad":
        """That of a model of the file."""
        size = BYTES_PER_VALUE[model["precision"]]
        flash_bytes, ram_bytes = size * model["params"], size * model["peak_elements"]
        return cls(model["memory_bytes"], flash_bytes, ram_bytes, model["macs"])


@dataclass(frozen=True)
class PlanReplay:
    """A plan file's plain content, replayed in whole numbers from its question."""

    problem: Problem
    plan: Mapping[str, Any]

    def false_claims(self) -> Iterator[str]:
        """Sentences for all that is untrue of students, budgets, counts and requirements."""
        yield from self._wrong_students()
        yield from self._wrong_joint_models()
        yield from self._misplaced()
        yield from self._wrong_budgets()
        yield from self._wrong_balance()
        values = self._values()
        for stage in self.plan["stages"]:
            value = values.get(stage["objective"], stage["value"])
            if stage["value"] != value:
                yield f"{stage['objective']} is {value:g}, not {stage['value']:g}"
        for asked in self.problem.requirements:
            value = values.get(asked.objective, asked.bound)
            sign = -1 if asked.objective in MAXIMISED else 1
            if sign * value > sign * asked.bound:
                yield f"{asked} is required; the plan has {value:g}"

    def _wrong_students(self) -> Iterator[str]:
        """Figures that are not those of a student's network and number of filters."""
        problem = self.problem
        for one in self.plan["students"]:
            if one["network"] not in problem.networks or one["precision"] not in problem.precisions:
                yield f"{one['name']}: {one['network']} {one['precision']} is not asked for"
            spec, own = parse_network(one["network"]), self.plan["group0"] is None
            cost = student_cost_line(spec, problem.image_shape, own).at(len(one["filters"]))
            rights = (
                ("params", cost.params),
                ("macs", cost.macs),
                ("peak_elements", cost.peak_elements),
                ("memory_bytes", cost.memory_bytes(one["precision"])),
            )
            for name, right in rights:
                if one[name] != right:
                    yield f"{one['name']}: {name} is {one[name]}; it should be {right}"

    def _misplaced(self) -> Iterator[str]:
        """Communities that are not in one place, and students that are not allowed."""
        problem, plan = self.problem, self.plan
        known = {one.id: one.filters for one in problem.partition.communities}
        first = [one for one in plan["students"] if one["round"] == 1]
        held = Counter(c for one in first for c in one["communities"])
        held.update(plan["dropped"])
        trained = problem.trained
        homeless = trained.communities if trained else frozenset()
        yield from (
            f"community {c} is in {held[c]} places"
            for c in known
            if held[c] != 1 and (held[c] or c not in homeless)
        )
        if trained is not None:
            yield from trained.changed(plan["students"])
        steps = (one for one in problem.partition.drop_steps if problem.allows(one))
        if not any(set(one.communities) == set(plan["dropped"]) for one in steps):
            yield f"communities {plan['dropped']} may not be dropped"
        for one in first:
            if set(one["filters"]) != {n for c in one["communities"] for n in known.get(c, ())}:
                yield f"{one['name']}: its filters are not those of its communities"
        if not problem.min_students <= len(plan["students"]) <= problem.most_students:
            yield f"{len(plan['students'])} students are not asked for"
        if len({parse_network(one["network"]).group0 for one in plan["students"]}) > 1:
            yield "students differ in G0, which they share"

    def _wrong_budgets(self) -> Iterator[str]:
        """Use of memory and MACs that is above a budget, or not as written."""
        rows = {(row["board"], row["budget"]): row["used"] for row in self.plan["budgets"]}
        for budget in self.problem.budgets:
            here = self._loads.get(budget.board, [])
            # Where flash is apart, models run one after the other in RAM.
            uses: dict[BudgetName, int] = {
                "memory_bytes": sum(one.memory_bytes for one in here),
                "macs": sum(one.macs for one in here),
            }
            if budget.flash_bytes is not None:
                uses["flash_bytes"] = sum(one.flash_bytes for one in here)
            if budget.ram_bytes is not None:
                uses["ram_bytes"] = max((one.ram_bytes for one in here), default=0)
            for name, amount in uses.items():
                used, limit = amount + (budget.allowance(name) if here else 0), budget.limit(name)
                if limit is not None and used > limit:
                    yield f"{budget.board} uses {used} of {limit} {name}"
                if rows.get((budget.board, name)) != used:
                    yield f"{budget.board} uses {used} {name}; the file says otherwise"
            yield from self._wrong_power(budget, rows.get((budget.board, "power_w")))
            yield from self._wrong_average(budget, rows.get((budget.board, "average_w")))

    def _wrong_power(self, budget: BoardBudget, written: float | None) -> Iterator[str]:
        """Power while a board computes that is above its limit, or not as written."""
        if budget.power_w is None:
            return
        used = self._computing_w.get(budget.board, 0.0)
        if used > budget.power_w * (1 + 1e-9):
            yield f"{budget.board} draws {used:g} of {budget.power_w:g} W"
        if written is None or not math.isclose(written, used, rel_tol=1e-9):
            yield f"{budget.board} draws {used:g} W; the file says otherwise"

    def _wrong_average(self, budget: BoardBudget, written: float | None) -> Iterator[str]:
        """Average power that is above its limit, or not that of the board's duty."""
        if budget.average_w is None:
            return
        duties = (self.plan.get("duty") or {}).get("boards", ())
        told = (one["average_w"] for one in duties if one["board"] == budget.board)
        used = next(told, 0.0) or 0.0
        if used > budget.average_w * (1 + 1e-9):
            yield f"{budget.board} draws {used:g} of {budget.average_w:g} W on average"
        if written is None or not math.isclose(written, used, rel_tol=1e-9):
            yield f"{budget.board} draws {used:g} W on average; the file says otherwise"

    @cached_property
    def _computing_w(self) -> dict[str, float]:
        """Power of each board that works while it computes, where it is known."""
        macs = {board: sum(one.macs for one in loads) for board, loads in self._loads.items()}
        return {
            one.name: computing_w(one.device, macs[one.name])
            for one in self.problem.boards
            if one.device.power_known and macs.get(one.name)
        }

    @cached_property
    def _loads(self) -> dict[str, list["_ModelLoad"]]:
        """Bytes and MACs of each model that a board runs, by its name."""
        found: dict[str, list[_ModelLoad]] = defaultdict(list)
        alone = self.plan["group0"]
        if alone is not None:
            found[alone["board"]].append(_ModelLoad.listed(alone))
        for (board, precision), members in self._joined.items():
            found[board].append(_ModelLoad.of(self._joint(members), precision))
        for one in () if self._shares else self.plan["students"]:
            for board in _boards(one):
                found[board].append(_ModelLoad.listed(one))
        return dict(found)

    @cached_property
    def _joined(self) -> dict[tuple[str, Precision], list[Mapping[str, Any]]]:
        """Students that share a copy of G0, by its board and precision."""
        found: dict[tuple[str, Precision], list[Mapping[str, Any]]] = defaultdict(list)
        for one in self.plan["students"] if self._shares else ():
            for board in _boards(one):
                found[board, one["precision"]].append(one)
        return dict(found)

    @property
    def _shares(self) -> bool:
        """Whether students of a board and a precision share its copy of G0."""
        return self.problem.group0_copies == "per-board" and self.plan["group0"] is None

    def _joint(self, students: Sequence[Mapping[str, Any]]) -> Cost:
        """Cost of one model of these students."""
        image = self.problem.image_shape
        return joint_cost(
            [
                (student_cost_line(parse_network(one["network"]), image), len(one["filters"]))
                for one in students
            ]
        )

    def _wrong_joint_models(self) -> Iterator[str]:
        """Joint models that differ from those of the students, or in cost."""
        listed = {(one["board"], one["precision"]): one for one in self.plan["joint_models"]}
        joined = {key: members for key, members in self._joined.items() if len(members) > 1}
        if listed.keys() != joined.keys() or len(listed) != len(self.plan["joint_models"]):
            yield f"there are {len(joined)} joint models: {sorted(joined)}, not {sorted(listed)}"
        for key in listed.keys() & joined.keys():
            one, cost = listed[key], self._joint(joined[key])
            for name, right in (
                ("students", tuple(member["name"] for member in joined[key])),
                ("params", cost.params),
                ("macs", cost.macs),
                ("peak_elements", cost.peak_elements),
                ("memory_bytes", cost.memory_bytes(one["precision"])),
            ):
                found = tuple(one[name]) if name == "students" else one[name]
                if found != right:
                    yield f"the joint model on {one['board']}: {name} is {found}, not {right}"

    def _wrong_balance(self) -> Iterator[str]:
        """How alike partitions are, or whether wider students know more, not as written or asked.

        A wider student has more parameters, whatever its filters.
        """
        problem, plan, asked = self.problem, self.plan, self.problem.balance_pct
        if asked is None and problem.inversion is None:
            return
        sizes = {one.id: len(one.filters) for one in problem.partition.communities}
        kept = tuple(size for c, size in sizes.items() if c not in plan["dropped"])
        first = [len(one["filters"]) for one in plan["students"] if one["round"] == 1]
        least, spread = least_spread(kept, len(first)), max(first) - min(first)
        units = None if asked is None else math.floor(asked * PCT_UNITS + NOISE)
        image = problem.image_shape
        known = [
            (student_cost_line(parse_network(one["network"]), image).params, len(one["filters"]))
            for one in plan["students"]
        ]
        fewer = (theirs - own for wide, own in known for width, theirs in known if width < wide)
        most = None if units is None else most_spread(units, kept, len(first))
        inversion = max((0, *fewer))
        rights = {
            "smallest": min(first),
            "largest": max(first),
            "least_spread": least.filters,
            "least_proven": least.proven,
            "most_spread": most,
            "unevenness_pct": uneven_units(spread, kept, len(first)) / PCT_UNITS,
            "inversion": inversion,
        }
        for name, right in rights.items():
            found = (plan["balance"] or {}).get(name)
            if found != right:
                yield f"balance: {name} is {found}, not {right}"
        if most is not None and spread > most:
            yield f"partitions are {spread} filters apart; balance allows {most}"
        if problem.inversion is not None and inversion > problem.inversion:
            yield f"a wider student has {inversion} filters fewer than a narrower one"

    def _known_params(self) -> int:
        """Parameters of all students, the G0 of each board counted once; no copies of students.

        Of a student's boards one counts, chosen so that most boards do.
        """
        students = self.plan["students"]
        params = sum(one["params"] for one in students)
        if self.plan["group0"] is not None:
            return int(params + self.plan["group0"]["params"])
        if self._shares:
            spec, image = parse_network(students[0]["network"]), self.problem.image_shape
            shared = len(students) - _most_apart([_boards(one) for one in students])
            params -= shared * group0_cost(spec, image).params
        return int(params)

    def _values(self) -> dict[str, float]:
        """Values of the objectives that are counted."""
        plan = self.plan
        sizes = [len(one["filters"]) for one in plan["students"]]
        known = {one.id: len(one.filters) for one in self.problem.partition.communities}
        lost = sum(known.get(c, 0) for c in plan["dropped"])
        loads = [load for loads in self._loads.values() for load in loads]
        return {
            "capacity": self._known_params(),
            "memory": sum(one.memory_bytes for one in loads),
            "flops": 2 * sum(one.macs for one in loads),
            "students": len(sizes),
            "imbalance": max(sizes) - min(sizes),
            "boards": len(self._loads),
            "precision": sum(BYTES_PER_VALUE[one["precision"]] for one in plan["students"]),
            "dropped": abs(plan["delta_val_pct"] or 0.0) - lost,
            "fleet-power": sum(self._computing_w.values()),
        }


def _boards(model: Mapping[str, Any]) -> list[str]:
    return [model["board"], *model.get("replicas", ())]


def _most_apart(holders: Sequence[Sequence[str]]) -> int:
    """Most holders that can have boards of their own, of those that they name.

    Path after path is found on which one more gets a board.
    """
    owner: dict[str, int] = {}
    for start in range(len(holders)):
        came: dict[str, int] = {}
        row = [start]
        while row:
            one = row.pop()
            for board in holders[one]:
                if board not in came:
                    came[board] = one
                    if board in owner:
                        row.append(owner[board])
                    else:
                        _hand_over(owner, came, board, start)
                        row.clear()
                        break
    return len(owner)


def _hand_over(owner: dict[str, int], came: Mapping[str, int], board: str, start: int) -> None:
    """Give each on the path from `start` the board that it came to."""
    while True:
        one = came[board]
        before = next((name for name, own in owner.items() if own == one), None)
        owner[board] = one
        if one == start or before is None:
            return
        board = before
