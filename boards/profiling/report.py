"""What a measurement found: the profile, and everything that it rests on."""

from pydantic import Field

from profiles.device import DeviceProfile
from profiles.document import Record
from profiles.link import LinkProfile


class StudentRow(Record):
    """A student that was measured."""

    network: str = Field(description="Its network.")
    image: str = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    filters: int = Field(description="Length of its vector.")
    macs: int = Field(description="MACs per image.")
    held_out: bool = Field(description="Whether no fit has seen it.")
    measured_ms: float = Field(description="Time of one image, in ms.")
    spread_pct: float = Field(description="Interquartile range of its blocks, in percent of that.")
    fitted_ms: float = Field(description="Time by the profile, in ms.")
    error_pct: float = Field(description="By how much that is too long, in percent.")


class KindRow(Record):
    """Errors on students of one family and image size."""

    kind: str = Field(description="Family and image size.")
    held_out: bool = Field(description="Whether no fit has seen them.")
    students: int = Field(description="Number of students.")
    mean_pct: float = Field(description="Mean error in absolute value, in percent.")
    largest_pct: float = Field(description="Largest error in absolute value, in percent.")


class ThreadRow(Record):
    """Students on so many threads."""

    threads: int = Field(description="Threads of each student.")
    ratio: float = Field(description="Time of a student beside that on one thread.")


class SharingRow(Record):
    """Several students at once."""

    students: int = Field(description="Number of students.")
    factor: float = Field(description="Time of all, beside the sum of each alone.")


class MessageRow(Record):
    """A message of one size."""

    size_bytes: int = Field(description="Size of the image, in bytes.")
    send_ms: float = Field(description="Time of the sender, in ms.")
    rest_ms: float = Field(description="Rest of the round trip, computing left out, in ms.")


class ConditionRow(Record):
    """The machine at one moment; null is what the system does not say."""

    temperature_c: float | None = Field(description="Of its hottest sensor, in degrees Celsius.")
    clock_hz: int | None = Field(description="Of its fastest core, in Hz.")
    governor: str | None = Field(description="What sets the clock.")


class ProfileReport(Record):
    """A measurement of one machine."""

    device: DeviceProfile = Field(description="The profile.")
    loopback: LinkProfile = Field(description="What a link within this machine carries.")
    engine: str = Field(description="What computes the students.")
    threads: int = Field(description="Threads of each student.")
    students: tuple[StudentRow, ...] = Field(description="Every student.")
    errors: tuple[KindRow, ...] = Field(description="Errors by family and image size.")
    held_out_mean_pct: float | None = Field(
        description="Mean error on students held out, in percent; null where there are none."
    )
    held_out_largest_pct: float | None = Field(description="Largest of these errors.")
    layers_held_out_mean_pct: float | None = Field(
        description="Mean error of the sum over single layers on students held out; null where "
        "the profile does not know all of their layers."
    )
    drift_pct: float = Field(
        description="By how much the first student took longer at the end, in percent."
    )
    thread_times: tuple[ThreadRow, ...] = Field(description="Students on more threads.")
    sharing: tuple[SharingRow, ...] = Field(description="Several students at once.")
    messages: tuple[MessageRow, ...] = Field(description="Messages by size.")
    before: ConditionRow = Field(description="The machine before.")
    after: ConditionRow = Field(description="The machine after.")
    warnings: tuple[str, ...] = Field(description="What makes the measurement doubtful.")
