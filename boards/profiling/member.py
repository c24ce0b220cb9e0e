"""Members: the students that are measured, and those that only test what the others say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nonn_core.bundle import Manifest
from nonn_core.candidates import student_candidates
from nonn_core.costs import student_cost
from nonn_core.family import NetworkSpec, parse_network
from nonn_core.image import Image
from profiles.errors import InputError

TEACHERS = ("wrn40-4", "wrn16-2", "resnet34-cifar", "vgg19")
IMAGES = ("3x32x32", "1x8x8")
FILTERS = 32
"""Filters of each student that is made here: about those of a small partition."""

PER_TEACHER, MOST_ALONE = 5, 15
"""Students of a teacher and image size; where there is only one of each."""

ANCHOR_TIMES = 3
"""How many times the MACs of the largest student a wider one has, where one teacher's students
are so alike that noise would decide how their time grows."""

_FEWEST_HELD_OUT_OF = 4
_FAMILIES = ("wrn", "vgg", "resnet", "mobilenetv2")


@dataclass(frozen=True, slots=True)
class Member:
    """One student: its name, network, image and filters, and whether no fit may see it."""

    name: str
    network: str
    image: Image
    filters: int
    held_out: bool = False

    @property
    def macs(self) -> int:
        """MACs per image."""
        return student_cost(parse_network(self.network), self.image, self.filters).macs

    @property
    def kind(self) -> str:
        """Its family and image size, by which errors are told."""
        family = next((each for each in _FAMILIES if self.network.startswith(each)), self.network)
        return f"{family} {self.image}"


def made_members(
    teachers: Sequence[str], images: Sequence[str], per_teacher: int | None = None
) -> tuple[Member, ...]:
    """Return students of these teachers, as a planner chooses them, from small to large.

    `per_teacher` is how many of each teacher and image size; for one teacher and one size there is
    a wider one too.  Raises InputError for what is no
    network or no image, and where none of the students can read such an image.
    """
    alone = len(teachers) * len(images) == 1
    count = per_teacher or (MOST_ALONE if alone else PER_TEACHER)
    found: list[Member] = []
    for teacher in teachers:
        for size in images:
            members = _spread(parse_network(teacher), Image.parse(size), count)
            found += _tested(list(members))
    if alone and found:
        found.append(_anchor(found[-1]))
    if not found:
        raise InputError(
            "no student of these teachers can read such an image",
            found=f"{', '.join(teachers)}; {', '.join(images)}",
            fix="take larger images, or another teacher",
        )
    return tuple(replace(each, name=f"student-{number}") for number, each in enumerate(found))


def bundled_members(manifest: Manifest, where: str) -> tuple[Member, ...]:
    """Return the students of a bundle, from small to large; raises InputError for fewer than two.

    `where` names the bundle.
    """
    image = Image.parse(manifest.image)
    found = [
        Member(model.name, model.network, image, len(model.filters))
        for model in manifest.models
        if model.role == "student" and model.network is not None
    ]
    if len({member.macs for member in found}) < 2:
        raise InputError(
            "students of one size do not tell how time grows with size",
            where=where,
            found=f"{len(found)} students",
            fix="profile without --bundle, or take a bundle of students of several sizes",
        )
    return tuple(_tested(sorted(found, key=lambda member: member.macs)))


def _spread(teacher: NetworkSpec, image: Image, count: int) -> Iterator[Member]:
    """Yield `count` students of a teacher, evenly from the smallest to the largest."""
    try:
        macs = {
            spec: student_cost(spec, image, FILTERS).macs for spec in student_candidates(teacher)
        }
    except InputError:
        return  # In this family nothing is left of such small images.
    ordered = sorted(macs, key=lambda spec: macs[spec])
    last = len(ordered) - 1
    places = dict.fromkeys(round(last * k / max(1, count - 1)) for k in range(count))
    for place in places:
        yield Member("", str(ordered[place]), image, FILTERS)


def _anchor(largest: Member) -> Member:
    """Return a wider student of the same family and depth."""
    spec = parse_network(largest.network)
    steps = (1 << power for power in range(3, 14))
    wider = (replace(largest, network=str(spec.proportional(step))) for step in steps)
    return next(member for member in wider if member.macs >= ANCHOR_TIMES * largest.macs)


def _tested(members: list[Member]) -> list[Member]:
    """Hold every second member out, but neither the smallest nor the largest."""
    if len(members) < _FEWEST_HELD_OUT_OF:
        return members
    return [
        replace(member, held_out=number % 2 == 1 and number < len(members) - 1)
        for number, member in enumerate(members)
    ]
