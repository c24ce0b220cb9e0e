"""Networks worth considering: the students of a teacher, and a single network of a given size."""

from nonn_core.costs import teacher_cost
from nonn_core.family import NetworkSpec
from nonn_core.image import Image

_STEPS = range(5, 400)


def student_candidates(teacher: NetworkSpec) -> tuple[NetworkSpec, ...]:
    """Return the networks that a planner chooses students from when nobody names any.

    As in A, section 4.3, a student has fewer layers than its teacher where the family has such a
    member, and at most half of its channels.
    """
    return tuple(dict.fromkeys(teacher.narrowed()))


def single_network(params: int, like: NetworkSpec, image: Image, classes: int) -> NetworkSpec:
    """Return the undivided classifier, of this family and depth, whose size is nearest `params`.

    Widths grow in the family's own proportion; it is what plain distillation is given when it is
    compared with a NoNN of the same total size.
    """
    sizes = (like.proportional(step) for step in _STEPS)
    return min(sizes, key=lambda spec: abs(teacher_cost(spec, image, classes).params - params))
