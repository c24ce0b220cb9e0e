"""Families of networks: a name read as a network, and candidates for students.

Torch-free.
"""

from typing import Annotated

from pydantic import AfterValidator

from nonn_common.errors import InputError
from nonn_core.networks import mobilenet, resnet, vgg
from nonn_core.networks.blueprint import ImageShape, NetworkSpec
from nonn_core.networks.network_cost import teacher_cost


def parse_network(text: str) -> NetworkSpec:
    """Read the name of a network of any family; raises InputError."""
    lowered = text.strip().lower()
    if lowered.startswith("wrn"):
        return resnet.WrnSpec.parse(text)
    if lowered.startswith("vgg"):
        return vgg.VggSpec.parse(text)
    if lowered.startswith("resnet"):
        return resnet.ResNetSpec.parse(text)
    if lowered.startswith("mobilenetv2"):
        return mobilenet.MobileNetSpec.parse(text)
    raise InputError(
        "not the name of a network",
        found=text,
        allowed="; ".join(
            (resnet.WRN_NOTATION, vgg.NOTATION, resnet.RESNET_NOTATION, mobilenet.NOTATION)
        ),
    )


def _network_name(text: str) -> str:
    try:
        return str(parse_network(text))
    except InputError as error:
        raise ValueError(str(error)) from None


NetworkName = Annotated[str, AfterValidator(_network_name)]
"""Name of a network in a document, checked and written in one way."""

_STEPS = range(5, 400)


def student_candidates(teacher: NetworkSpec) -> tuple[NetworkSpec, ...]:
    """Return the networks that a planner chooses students from when nobody names any.

    As in arXiv:1907.11804, section 4.3, a student has fewer layers than its teacher where the
    family has such a member, and at most half of its channels.
    """
    return tuple(dict.fromkeys(teacher.narrowed()))


def single_network(params: int, like: NetworkSpec, image: ImageShape, classes: int) -> NetworkSpec:
    """Return the undivided classifier, of this family and depth, whose size is nearest `params`.

    Widths grow in the family's own proportion; it is what plain distillation is given when it is
    compared with a NoNN of the same total size.
    """
    sizes = (like.proportional(step) for step in _STEPS)
    return min(sizes, key=lambda spec: abs(teacher_cost(spec, image, classes).params - params))
