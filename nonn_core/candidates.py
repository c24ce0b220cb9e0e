"""Networks worth considering: the students of a teacher, and a single network of a given size."""

from itertools import product

from nonn_core.costs import teacher_cost
from nonn_core.family import Image, WrnSpec

SHALLOWEST, STUDENT_DEPTH = 10, 16
_EIGHTHS = ((2, 4), (2, 3, 4), (1, 2, 3, 4))
_FINEST = 200


def student_candidates(teacher: WrnSpec) -> tuple[WrnSpec, ...]:
    """Return the networks that a planner chooses students from when nobody names any.

    As in A, section 4.3, a student has fewer layers than its teacher (WRN40 -> WRN16; WRN16 and
    shallower -> WRN10) and at most half of its channels: an eighth to four eighths, per group.
    """
    depth = STUDENT_DEPTH if teacher.depth > STUDENT_DEPTH else SHALLOWEST
    first, second, third = (
        [max(1, width * eighths // 8) for eighths in shares]
        for width, shares in zip(teacher.widths, _EIGHTHS, strict=True)
    )
    return tuple(dict.fromkeys(WrnSpec(depth, w) for w in product(first, second, third)))


def single_network(params: int, depth: int, image: Image, classes: int) -> WrnSpec:
    """Return the undivided classifier of this depth whose size is nearest to `params`.

    Widths grow in the family's own proportion, 16k : 32k : 64k, with k in steps of a sixteenth; it
    is what plain distillation is given when it is compared with a NoNN of the same total size.
    """
    sizes = (WrnSpec(depth, (step, 2 * step, 4 * step)) for step in range(1, _FINEST))
    return min(sizes, key=lambda spec: abs(teacher_cost(spec, image, classes).params - params))
