"""Networks by name: what a teacher or a student is, before any weight exists."""

from collections.abc import Hashable
from typing import Annotated, Protocol

from pydantic import AfterValidator

from nonn_core.blueprint import Blueprint
from nonn_core.families import mobilenet, resnet, vgg, wrn
from profiles.errors import InputError


class NetworkSpec(Hashable, Protocol):
    """A member of a family; `str` gives its name, which `parse_network` reads back."""

    @property
    def group0(self) -> str:
        """What decides the shape of G0, the stem and first group.

        Students can share G0 (A, section 4.3) exactly when these are equal.
        """

    def proportional(self, step: int) -> "NetworkSpec":
        """Return this network with widths in the family's own proportion, `step` being the size."""

    def narrowed(self) -> "tuple[NetworkSpec, ...]":
        """Return the students that a planner considers for such a teacher."""

    def blueprint(self, image_channels: int) -> Blueprint:
        """Return what the network consists of."""


def parse_network(text: str) -> NetworkSpec:
    """Read the name of a network of any family; raises InputError."""
    lowered = text.strip().lower()
    if lowered.startswith("wrn"):
        return wrn.WrnSpec.parse(text)
    if lowered.startswith("vgg"):
        return vgg.VggSpec.parse(text)
    if lowered.startswith("resnet"):
        return resnet.ResNetSpec.parse(text)
    if lowered.startswith("mobilenetv2"):
        return mobilenet.MobileNetSpec.parse(text)
    raise InputError(
        "not the name of a network",
        found=text,
        allowed="; ".join(family.NOTATION for family in (wrn, vgg, resnet, mobilenet)),
    )


def _network_name(text: str) -> str:
    try:
        return str(parse_network(text))
    except InputError as error:
        raise ValueError(str(error)) from None


NetworkName = Annotated[str, AfterValidator(_network_name)]
"""Name of a network in a document, checked and written in one way."""
