"""Menus: the networks that the students of one plan may be, larger ones first."""

from collections.abc import Iterator

from planner.instance import Instance
from planner.option import Option


def menus(instance: Instance) -> Iterator[tuple[Option, ...]]:
    """Yield for each network, larger ones first, itself and all smaller ones that share its G0."""
    filters = instance.filters // instance.slots
    order = sorted(instance.options, key=lambda option: -option.line.at(filters).params)
    for place, largest in enumerate(order):
        yield tuple(option for option in order[place:] if option.group0 == largest.group0)
