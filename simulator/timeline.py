"""Timeline: what every picture of a run shows, actors and their resources as lanes."""

from collections.abc import Iterable
from dataclasses import dataclass

from profiles.errors import SimulationError
from simulator.job import HOST, Job, owner
from simulator.recording import Recording
from simulator.result import SimulationResult

_TITLES = {
    "nic": "network card",
    "down": "link in",
    "wire": "link",
    "cpu": "processor",
    "up": "link out",
}
"""Titles of a board's (or the host's) resources, in the order in which an image meets them."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One resource: the actor it belongs to (a shared medium is its own), and its title."""

    owner: str
    resource: str
    title: str


def recorded(result: SimulationResult) -> Recording:
    """Return what `result` was computed from; raises SimulationError where it was not kept."""
    if result.recording is None:
        raise SimulationError("only totals of this run were kept; simulate with keep=all")
    return result.recording


def lanes(job: Job) -> tuple[Lane, ...]:
    """Return every resource of `job`: the host's, each board's in the order of nodes, media."""
    found = [_lane(resource) for resource in job.resources]
    rank = {name: number for number, name in enumerate(actors(job))}
    kinds = list(_TITLES)
    return tuple(sorted(found, key=lambda lane: (rank[lane.owner], kinds.index(_kind(lane)))))


def actors(job: Job) -> tuple[str, ...]:
    """Return the host, the boards in the order of nodes, then shared media; those there are."""
    there = {_lane(resource).owner for resource in job.resources}
    there |= {step.actor for step in job.steps} | {node.name for node in job.nodes}
    named = (HOST, *(node.name for node in job.nodes))
    return tuple(dict.fromkeys([name for name in named if name in there] + sorted(there)))


def _lane(resource: str) -> Lane:
    board = owner(resource)
    if board is None:
        return Lane(resource.replace(":", " ", 1), resource, "shared")
    kind, _, own = resource.removeprefix(f"{board}.").partition("/")
    return Lane(board, resource, own or _TITLES.get(kind, kind))


def _kind(lane: Lane) -> str:
    kind = lane.resource.removeprefix(f"{lane.owner}.").partition("/")[0]
    return kind if kind in _TITLES else "nic"


def never_overlapping(intervals: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each interval, in the order of their starts, a row in which nothing overlaps it.

    The first row that is free, so that there are as few as can be.
    """
    until: list[int] = []
    rows = []
    for start, end in intervals:
        row = next((r for r, last in enumerate(until) if last <= start), len(until))
        until[row:] = [end, *until[row + 1 :]]
        rows.append(row)
    return rows
