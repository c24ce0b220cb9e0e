"""A loading: the students that one board runs together, and what they cost there.

All costs are in solver units (`planner.scaling`), the same that the models use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from planner.instance import Instance
from planner.scaling import busy_units, delay_units, energy_units, reply_units
from planner.site import Site

Task = tuple[int, int]
"""A student as a board sees it: place of its option in the instance, and its filters."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Tasks of one board and their cost: bytes, MACs, parameters, and solver units.

    `value_bytes` adds up the bytes per value of the students, `send` is the host's time for the
    image, `delay` the time under way on both ways.
    """

    tasks: tuple[Task, ...]
    memory_bytes: int
    macs: int
    params: int
    value_bytes: int
    busy: int
    energy: int
    send: int
    reply: int
    delay: int

    @property
    def tail(self) -> int:
        """What follows the send until the reply is there."""
        return self.busy + self.reply + self.delay

    def excess(self, site: Site) -> float:
        """Return by which part of them the budgets of `site` are exceeded, added up."""
        needs = (
            (self.memory_bytes, site.memory_bytes),
            (self.macs, site.macs),
            (self.busy, site.busy),
            (self.energy, site.energy),
            (self.busy + self.reply, site.latest),
        )
        return sum(
            (need - limit) / max(1, limit)
            for need, limit in needs
            if limit is not None and need > limit
        )


def loader(instance: Instance) -> Callable[[int, tuple[Task, ...]], Loading]:
    """Return what loads a board (by its place) with sorted tasks; it remembers what it has seen."""
    first: dict[object, int] = {}
    alike = [first.setdefault(site.kind, b) for b, site in enumerate(instance.sites)]
    loaded = cache(lambda board, tasks: _loading(instance, board, tasks))
    return lambda board, tasks: loaded(alike[board], tasks)


def _loading(instance: Instance, board: int, tasks: tuple[Task, ...]) -> Loading:
    site = instance.sites[board]
    device, several = site.board.device, len(tasks) > 1
    students = [(instance.options[o], filters) for o, filters in tasks]
    costs = [option.line.at(filters) for option, filters in students]
    return Loading(
        tasks=tasks,
        memory_bytes=sum(option.memory_bytes(filters) for option, filters in students),
        macs=sum(cost.macs for cost in costs),
        params=sum(cost.params for cost in costs),
        value_bytes=sum(option.value_bytes for option, _ in students),
        busy=sum(busy_units(device, o.line, several).at(n) for o, n in students),
        energy=sum(energy_units(device, o.line, several).at(n) for o, n in students),
        send=instance.send(board),
        reply=sum(filters for _, filters in tasks) * reply_units(site.board),
        delay=delay_units(site.board),
    )
