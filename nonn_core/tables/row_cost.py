"""What a row of a table needs, in closed form.  Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass

from nonn_core.costs import (
    classifier_params,
    group0_cost,
    student_cost,
    student_cost_line,
    teacher_cost,
)
from nonn_core.family import parse_network
from nonn_core.image import Image
from nonn_core.split_cost import split_cost
from nonn_core.split_layout import split_layout
from nonn_core.tables.rows import PARTITIONS, Row

_PUBLISHED_FILTERS, _PUBLISHED_SIZES = 256, (34, 46)


@dataclass(frozen=True, slots=True)
class RowCost:
    """What a row needs.

    `student_params` are those of the largest student with its copy of G0, which is how A counts
    them also where G0 has a board of its own; `board_macs` those of the board that computes most;
    `total_params` those of the whole, G0 and FC counted once; `fleet_params` and `fleet_macs` those
    of all boards together.  For an undivided network these are all its own.
    """

    student_params: int
    board_macs: int
    total_params: int
    fleet_params: int
    fleet_macs: int


def row_cost(row: Row, image: Image, classes: int, sizes: Sequence[int]) -> RowCost:
    """Cost of a row; `sizes` are the filters of each of a NoNN's students."""
    if row.method == "splitnet":
        return _splitnet_cost(row, image, classes)
    if row.is_nonn:
        return _nonn_cost(row, image, classes, sizes)
    whole = teacher_cost(parse_network(row.network), image, classes)
    return RowCost(whole.params, whole.macs, whole.params, whole.params, whole.macs)


def published_sizes(teacher: str, students: int) -> tuple[int, ...]:
    """Return the filters of each student by the published shares, before there is a partition.

    A's two students mimic 34 and 46 of WRN40-4's 256 filters.
    """
    filters = parse_network(teacher).blueprint(image_channels=3).features
    sizes = [max(1, filters * size // _PUBLISHED_FILTERS) for size in _PUBLISHED_SIZES]
    return tuple(sizes[k % PARTITIONS] for k in range(students))


def _nonn_cost(row: Row, image: Image, classes: int, sizes: Sequence[int]) -> RowCost:
    spec = parse_network(row.network)
    group0, head = group0_cost(spec, image), student_cost_line(spec, image, own_group0=False)
    students = [student_cost(spec, image, size) for size in sizes]
    heads = [head.at(size) for size in sizes]
    boards = [group0, *heads] if row.group0_has_a_board else students
    whole = group0.params + sum(each.params for each in heads)
    return RowCost(
        student_params=max(each.params for each in students),
        board_macs=max(board.macs for board in boards),
        total_params=whole + classifier_params(sum(sizes), classes),
        fleet_params=sum(board.params for board in boards),
        fleet_macs=sum(board.macs for board in boards),
    )


def _splitnet_cost(row: Row, image: Image, classes: int) -> RowCost:
    layout = split_layout(parse_network(row.network), image.channels, classes, row.groups)
    cost = split_cost(layout, image)
    return RowCost(
        student_params=cost.group_params,
        board_macs=cost.group_macs,
        total_params=cost.params,
        fleet_params=row.students * cost.group_params,
        fleet_macs=row.students * cost.group_macs,
    )
