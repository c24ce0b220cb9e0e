"""A link: the wire between the host and one board."""

from typing import ClassVar

from pydantic import Field, field_validator

from profiles.document import Document
from profiles.errors import InputError, ProfileError
from profiles.figure import Figure
from profiles.shelf import Shelf

BYTES_PER_FEATURE = 4
"""A student's features travel as fp32 values (arXiv:1907.11804, section 6.1)."""


class LinkProfile(Document):
    """A full-duplex, lossless link of constant rate, used by one board alone."""

    mistake: ClassVar[type[InputError]] = ProfileError

    name: str = Field(min_length=1, description="Name that fleets and commands use.")
    title: str = Field(min_length=1, description="Name that people use.")
    bits_per_s: Figure = Field(description="Rate that a message sees, in bit/s; above zero.")

    @field_validator("bits_per_s")
    @classmethod
    def _carries_something(cls, rate: Figure) -> Figure:
        if rate.value == 0:
            raise ValueError("must be above 0 bit/s")
        return rate


LINKS = Shelf(LinkProfile, "link", "links")


def wire_ms(link: LinkProfile, size_bytes: int) -> float:
    """Return the time of `size_bytes` on the wire, in ms: 8 bits per byte over the rate."""
    return 8000.0 * size_bytes / link.bits_per_s.value
