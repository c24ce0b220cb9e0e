"""Proposal of students for a teacher of no family known here.

Wide residual networks for small images, residual ones with the stem for large images; both in
the published proportion of widths and around it, scaled until the widest just fits a board.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.network_cost import Precision, student_cost_line
from nonn_core.networks.resnet import ResNetSpec, WrnSpec
from planner.problem.goals import BoardBudget
from profiles.fleet import Board
from simulator.workloads.layer_parts import time_line, work_mj, work_ms

LARGE_IMAGE = 96
"""From this side on images are large: the stem halves them twice."""
TEACHER_SHARE = 4
"""A student has at most one in so many of its teacher's parameters: half of the channels."""

_LIKE_SMALL, _LIKE_LARGE = WrnSpec.parse("wrn40-1"), ResNetSpec.parse("resnet34")
_SCALES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
"""Channels of the first group; coarse, so that like budgets have the same students."""


def propose_students(
    image: ImageShape,
    boards: Sequence[Board],
    budgets: Sequence[BoardBudget],
    filters: int,
    precision: Precision,
    teacher_params: int,
) -> tuple[str, ...]:
    """Networks to choose students from, scaled to the budgets of the boards.

    `filters` are those of the teacher: a student is taken to mimic an even share of them.  The
    roomiest board and the tightest each have networks of their size; those of the roomiest come
    with the first groups of both, so that students of either size can share theirs.
    """
    like = _LIKE_LARGE if max(image.height, image.width) >= LARGE_IMAGE else _LIKE_SMALL
    share = ceil(filters / len(boards))

    def fits(scale: int, board: Board, budget: BoardBudget) -> bool:
        """Whether a student of this scale keeps every budget of the board."""
        widest = max(_students(like, scale), key=lambda one: one.widths)
        line = student_cost_line(widest, image)
        cost, times = line.at(share), time_line(board.device, line.outline)
        work = cost.macs if times is None else times.at(share)
        if cost.memory_bytes(precision) > budget.room_bytes:
            return False
        if cost.params * TEACHER_SHARE > teacher_params:
            return False
        if budget.macs is not None and cost.macs > budget.macs:
            return False
        if budget.busy_ms is not None and work_ms(board.device, work) > budget.busy_ms:
            return False
        return budget.energy_mj is None or work_mj(board.device, work) <= budget.energy_mj

    largest = [
        max((scale for scale in _SCALES if fits(scale, *each)), default=_SCALES[0])
        for each in zip(boards, budgets, strict=True)
    ]
    tight, roomy = _students(like, min(largest)), _students(like, max(largest))
    firsts = dict.fromkeys(student.widths[0] for student in tight)
    mixed = [
        replace(student, widths=(first, *student.widths[1:]))
        for first in firsts
        for student in roomy
    ]
    return tuple(dict.fromkeys(map(str, (*tight, *roomy, *mixed))))


def _students(like: WrnSpec | ResNetSpec, scale: int) -> Sequence[WrnSpec | ResNetSpec]:
    """Students of such a network whose widest has `scale` channels in the first group."""
    return like.proportional(2 * scale).narrowed()
