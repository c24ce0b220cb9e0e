"""The published facts that the profiles are fitted to, as the package carries them."""

from functools import cache
from importlib.resources import files
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from profiles.device import DeviceProfile, FigureName
from profiles.document import Document, Record, plain_yaml
from profiles.errors import ProfileError
from profiles.figure import Figure
from profiles.measurements import Measurement


class TakenOver(Record):
    """Figures that a device takes from another one, for want of a measurement of its own."""

    device: str = Field(description="The other device.")
    figures: tuple[FigureName, ...] = Field(min_length=1, description="Names of the figures.")
    by_clock: bool = Field(
        default=False, description="Whether they shrink as the clock rises: times of software."
    )


class DeviceFacts(DeviceProfile):
    """What a device is, the figures that are stated for it, and those that it takes over.

    Figures that are neither are fitted to the measurements.
    """

    like: tuple[TakenOver, ...] = Field(default=(), description="Figures of other devices.")

    def described(self) -> DeviceProfile:
        """Return the profile with the stated figures only."""
        return DeviceProfile.model_validate(self.model_dump(exclude={"like"}))


class HostFacts(Record):
    """What is known of joining the replies."""

    device: str = Field(description="Device of the host.")
    fc_ms: Figure = Field(description="Final fully-connected layer, in ms per image.")
    join_fixed_ms: Figure | None = Field(
        default=None, description="The rest of joining, in ms; fitted where absent."
    )


class Sweep(Record):
    """Students that move, one by one, from slow boards of their own to one fast board."""

    table: str = Field(description="Figure it was published in.")
    slow_device: str = Field(description="Device that runs one student.")
    fast_device: str = Field(description="Device that runs several at once.")
    students: int = Field(ge=2, description="How many there are.")
    macs: PositiveInt = Field(description="Multiply-accumulates per image of each student.")
    students_at_once: int = Field(
        ge=2, description="How many on the fast device take as long as one on the slow device."
    )
    least_total_ms_at: int = Field(
        ge=0, description="Students on the fast device where the total latency is least."
    )
    withheld: tuple[Literal["energy_per_fleet_mj", "communication_ms"], ...] = Field(
        description="What was measured along the sweep, but is to be predicted."
    )
    source: str = Field(description="Where these facts are from.")


class PublishedFacts(Document):
    """All published facts; each names its source."""

    devices: tuple[DeviceFacts, ...] = Field(description="The devices of the library.")
    host: HostFacts = Field(description="What is known of the host.")
    sweep: Sweep | None = Field(default=None, description="What several students at once cost.")
    measurements: tuple[Measurement, ...] = Field(description="Rows of the published tables.")

    @model_validator(mode="after")
    def _profiles_have_keys_of_their_own(self) -> Self:
        keys = [device.key for device in self.devices]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise ValueError(f"board, runtime, precision and clock repeat: {sorted(repeated)}")
        return self

    def device(self, name: str) -> DeviceFacts:
        """Return the facts of the device called `name`; raises ProfileError without any."""
        for facts in self.devices:
            if facts.name == name:
                return facts
        raise ProfileError("no published facts for this device", found=name)

    def measured_on(self, device: str) -> tuple[Measurement, ...]:
        """Return the rows measured on `device`, in the file's order."""
        return tuple(row for row in self.measurements if row.device == device)

    def without(self, row: Measurement) -> Self:
        """Return these facts without one row."""
        kept = tuple(each for each in self.measurements if each is not row)
        return self.model_copy(update={"measurements": kept})


@cache
def published_facts() -> PublishedFacts:
    """Return the facts in the package's `data/published.yaml`."""
    text = (files("profiles") / "data" / "published.yaml").read_text(encoding="utf-8")
    return PublishedFacts.check(plain_yaml(text), where="published.yaml")
