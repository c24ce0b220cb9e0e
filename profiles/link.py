"""A link: the wire, or the air, between the host and a board."""

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from nonn_common.document import Document
from nonn_common.errors import InputError, ProfileError
from profiles import Quantity, Registry
from profiles.device import DeviceProfile, quantity_value

BYTES_PER_FEATURE = 4
"""A student's features travel as fp32 values (arXiv:1907.11804, section 6.1)."""

_NONE = Quantity(value=0.0, provenance="assumed", source="left out of this link's model")


class LinkProfile(Document):
    """A link of constant rate.

    Full duplex, lossless and used by one board alone unless it says so.

    A message is on its way for `latency_ms + wire_ms + jitter`, where jitter is exponential with
    mean `jitter_ms`; with probability `loss_pct` a transmission is lost and repeated after
    `retransmit_ms`.
    """

    error_class: ClassVar[type[InputError]] = ProfileError

    name: str = Field(min_length=1, description="Name that fleets and commands use.")
    title: str = Field(min_length=1, description="Name that people use.")
    bits_per_s: Quantity = Field(description="Rate that a message sees, in bit/s; above zero.")
    latency_ms: Quantity = Field(
        default=_NONE, description="Delay of every message, in ms, on top of its time on the wire."
    )
    duplex: Literal["full", "half"] = Field(
        default="full",
        description="full: both directions at once; half: one direction at a time.",
    )
    shared: bool = Field(
        default=False,
        description="Whether all boards on this link share one medium, one message at a time.",
    )
    loss_pct: Quantity = Field(
        default=_NONE,
        description="Transmissions that are lost and repeated, in per cent; below 100.",
    )
    retransmit_ms: Quantity = Field(
        default=_NONE, description="Time until a lost transmission is repeated, in ms."
    )
    jitter_ms: Quantity = Field(
        default=_NONE, description="Mean of the exponential delay added to each message, in ms."
    )

    @field_validator("bits_per_s")
    @classmethod
    def _carries_something(cls, rate: Quantity) -> Quantity:
        if rate.value == 0:
            raise ValueError("must be above 0 bit/s")
        return rate

    @field_validator("loss_pct")
    @classmethod
    def _delivers_something(cls, loss: Quantity) -> Quantity:
        if loss.value >= 100:
            raise ValueError(f"must be from 0 to below 100 %; found {loss.value:g}")
        return loss

    @model_validator(mode="after")
    def _one_medium_has_one_direction_at_a_time(self) -> Self:
        if self.shared and self.duplex == "full":
            raise ValueError("a shared medium is half duplex; found duplex full with shared true")
        return self


def noise_text(link: LinkProfile) -> str:
    """Loss and jitter of a link in words; nothing where it has neither."""
    lost, jitter_ms = link.loss_pct.value, link.jitter_ms.value
    parts = (
        f"{lost:g} % of transmissions are lost and repeated after {link.retransmit_ms.value:g} ms",
        f"jitter is {jitter_ms:g} ms on average",
    )
    return ", ".join(part for part, told in zip(parts, (lost, jitter_ms), strict=True) if told)


LINKS = Registry(LinkProfile, "link", "links")


def wire_ms(link: LinkProfile, size_bytes: int) -> float:
    """Time of `size_bytes` on the wire, in ms: 8 bits per byte over the rate."""
    return 8000.0 * size_bytes / link.bits_per_s.value


def chained_link(first: LinkProfile, between: DeviceProfile, last: LinkProfile) -> LinkProfile:
    """One link that stands for `first`, the board `between`, and `last`.

    It has the name of the one that shares a medium, so that it shares it too.  Raises ProfileError
    where the board in between has no message_ms.
    """
    note = f"{first.name}, then {last.name}, passed on by {between.name}"

    def assumed(value: float) -> Quantity:
        return Quantity(value=value, provenance="assumed", source=note)

    passing_ms = quantity_value(between, "message_ms")
    arriving = (1 - first.loss_pct.value / 100) * (1 - last.loss_pct.value / 100)
    return LinkProfile(
        name=first.name if first.shared and not last.shared else last.name,
        title=note,
        bits_per_s=assumed(1 / (1 / first.bits_per_s.value + 1 / last.bits_per_s.value)),
        latency_ms=assumed(first.latency_ms.value + passing_ms + last.latency_ms.value),
        duplex="half" if "half" in (first.duplex, last.duplex) else "full",
        shared=first.shared or last.shared,
        loss_pct=assumed(100 * (1 - arriving)),
        retransmit_ms=assumed(max(first.retransmit_ms.value, last.retransmit_ms.value)),
        jitter_ms=assumed(first.jitter_ms.value + last.jitter_ms.value),
    )
