"""Questions of `benchmarks/instances`, as they were drawn."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from drawn_problems import unlike_question
from known_instance import Instance

from nonn_common.document import Record
from nonn_common.units import FLOPS_PER_MAC
from profiles import Quantity
from profiles.device import DEVICES
from profiles.fleet import Fleet

STAGED = "dropped,capacity:5%,imbalance,latency"


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a question is drawn: numbers of boards, students and communities, and what differs."""

    name: str
    boards: int
    students: int
    communities: int
    objective: str
    seed: int = 0
    medium: bool = False
    budget_share: float = 1.0
    options: tuple[tuple[str, int | str], ...] = ()

    def instance(self) -> Instance:
        """Draw it, with rounded figures of boards and without what no plan depends on."""
        asked = unlike_question(
            self.seed,
            boards=(self.boards, self.boards),
            students=(self.students, self.students),
            communities=(self.communities, self.communities),
        )
        share = self.budget_share
        options: dict[str, Any] = {
            "student": asked.networks,
            "students": str(self.students),
            "precision": ",".join(asked.precisions),
            "image": asked.image,
            "classes": asked.classes,
            "epsilon": "1",
            "objective": self.objective,
            "memory": tuple(
                f"{b.board}={share * (b.memory_bytes or 0):.0f}B" for b in asked.budgets
            ),
            "flops": tuple(
                f"{b.board}={share * FLOPS_PER_MAC * (b.macs or 0):.0f}" for b in asked.budgets
            ),
        }
        fleet = drawn_fleet(asked.fleet, self.medium)
        options |= dict(self.options)
        return Instance(name=self.name, options=options, partition=asked.partition, fleet=fleet)


FIGURES = (
    *("compute_fixed_ms", "compute_ms_per_mmac", "power_fixed_w", "power_busy_w", "message_ms"),
    *("sharing_slowdown", "bits_per_s", "latency_ms", "join_fixed_ms", "fc_ms", "hosting"),
)
"""Figures of devices and links on which a plan depends."""


def plain(one: Record, **own: Any) -> dict[str, Any]:
    """Figures of a device or link, to five digits, and without sources."""
    found: dict[str, Any] = {}
    for name, value in one:
        if isinstance(value, Quantity) and name in FIGURES:
            value = Quantity(
                value=float(f"{value.value:.5g}"), provenance="assumed", source="drawn"
            )
            found[name] = value.model_dump(mode="json", exclude_defaults=True)
        elif isinstance(value, Record) and name in FIGURES:
            found[name] = plain(value)
    return found | own


def drawn_fleet(fleet: Fleet, medium: bool) -> Fleet:
    """The fleet by its figures alone, its host included; on one medium where that is asked for."""
    host = DEVICES.get(fleet.host)
    devices = [
        plain(one, name=name, title="drawn", cores=one.cores, runtime=one.runtime,
              precision=one.precision)
        for name, one in (("host-0", host), *((one.name, one) for one in fleet.devices))
    ]  # fmt: skip
    shared = {"duplex": "half", "shared": True} if medium else {}
    links = [plain(one, name=one.name, title="drawn", **shared) for one in fleet.links]
    boards = [one.model_dump(exclude_defaults=True) for one in fleet.boards]
    if medium:
        links = links[:1]
        boards = [one | {"link": fleet.links[0].name} for one in boards]
    content = {"name": fleet.name, "title": fleet.title, "host": "host-0", "boards": boards}
    return Fleet.check(content | {"devices": devices, "links": links}, where=fleet.name)


COPIES_APART = (("group0_copies", "per-student"), ("balance", "off"))
"""Students with a copy of G0 each, and partitions as unlike as may be."""

DRAWINGS = (
    Drawing("08x08-latency", 8, 8, 8, "latency"),
    Drawing("08x08-default", 8, 8, 8, STAGED),
    Drawing("08x08-energy-free", 8, 8, 8, "energy", seed=1, options=COPIES_APART),
    Drawing("16x16-capacity", 16, 16, 16, "capacity"),
    Drawing("16x16-latency", 16, 16, 16, "latency", seed=1),
    Drawing("16x16-default-free", 16, 16, 16, STAGED, options=COPIES_APART),
    Drawing("24x24-capacity", 24, 24, 24, "capacity"),
    Drawing("24x24-latency-free", 24, 24, 24, "latency", options=COPIES_APART),
    Drawing("24x24-energy", 24, 24, 24, "energy", seed=1),
    Drawing("32x32-capacity-free", 32, 32, 32, "capacity", options=COPIES_APART),
    Drawing("32x32-latency", 32, 32, 32, "latency", seed=1),
    Drawing("32x32-default-free", 32, 32, 32, STAGED, options=COPIES_APART),
    Drawing("04x12-capacity", 4, 4, 12, "capacity"),
    Drawing("04x12-latency-medium", 4, 4, 12, "latency", seed=1, medium=True),
    Drawing("04x12-default", 4, 4, 12, STAGED, seed=2),
    Drawing("08x20-latency-1to8", 8, 8, 20, "latency", options=(("students", "1:8"),)),
    Drawing("08x20-capacity-free", 8, 8, 20, "capacity", seed=1, options=COPIES_APART),
    Drawing("08x20-default", 8, 8, 20, STAGED, seed=2),
    Drawing("08x40-capacity", 8, 8, 40, "capacity"),
    Drawing("08x40-imbalance", 8, 8, 40, "imbalance,latency", seed=1),
    Drawing("06x30-latency-wires", 6, 6, 30, "latency"),
    Drawing("06x30-latency-medium", 6, 6, 30, "latency", medium=True),
    Drawing("06x30-energy-medium", 6, 6, 30, "energy,latency", seed=1, medium=True),
    Drawing("06x10-copies-latency", 6, 3, 10, "capacity:5%,latency", options=(("survive", 1),)),
    Drawing("06x10-copies-free", 6, 4, 10, "survival,capacity", seed=1,
            options=(("copies", 2), *COPIES_APART)),
    Drawing("06x12-own-board", 6, 4, 12, "capacity,latency", options=(("group0", "own-board"),)),
    Drawing("08x08-small", 8, 8, 8, "latency", seed=2, budget_share=0.6),
    Drawing("16x16-small", 16, 16, 16, "latency", budget_share=0.6),
    Drawing("06x30-small", 6, 6, 30, "latency", seed=2, budget_share=0.5),
)  # fmt: skip
"""All questions; a file holds what was drawn, so that a change of drawing changes none."""
