"""The published facts that the profiles are fitted to, as the package carries them."""

from functools import cache
from importlib.resources import files
from typing import Literal, Self

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from profiles.document import Document, Record
from profiles.errors import ProfileError


class DeviceFacts(Record):
    """What a device is, apart from what was measured on it."""

    name: str = Field(description="Name of the device in the library.")
    title: str = Field(description="Name that people use.")
    clock_hz: PositiveInt = Field(description="Clock of the cores in use, in Hz.")
    cores: PositiveInt = Field(description="Cores in use.")
    ram_bytes: PositiveInt = Field(description="Memory of the device, in bytes.")
    memory_budget_bytes: PositiveInt | None = Field(
        default=None, description="What one plan may use, in bytes, where that is less."
    )
    runtime: str = Field(description="What executes the model.")
    precision: Literal["fp32", "fp16", "int8"] = Field(description="Number format.")
    source: str = Field(description="Where these facts are from.")


class Traffic(Record):
    """What travelled between host and boards in the published deployments."""

    image_bytes: PositiveInt = Field(description="Size of the image on the wire, in bytes.")
    features: PositiveInt = Field(description="fp32 values that a student returns.")
    link: str = Field(description="Link of the library taken for the published network.")
    source: str = Field(description="Where these facts are from.")


class Deployment(Record):
    """One row of a deployment table: a teacher alone, or one student on each of some boards."""

    table: str = Field(description="Table the row is from.")
    device: str = Field(description="Device of every board.")
    row: str = Field(description="Name of the row within table and device.")
    students: int = Field(
        default=0, ge=0, description="Students, one per board; 0 for a teacher alone, no host."
    )
    macs: PositiveInt = Field(description="Multiply-accumulates per image on each board.")
    total_ms: PositiveFloat = Field(description="Latency per image, in ms.")
    compute_ms: PositiveFloat | None = Field(
        default=None, description="Share of computing in it, in ms; of a teacher, all."
    )
    communication_ms: PositiveFloat | None = Field(
        default=None, description="The rest of it, in ms; of a teacher, none."
    )
    energy_per_node_mj: PositiveFloat = Field(
        description="Energy of one board's computing per image, in mJ."
    )

    @model_validator(mode="after")
    def _only_a_nonn_communicates(self) -> Self:
        split = (self.compute_ms is not None, self.communication_ms is not None)
        if split != (self.students > 0,) * 2:
            raise ValueError("compute_ms and communication_ms are for rows with students")
        return self

    @property
    def busy_ms(self) -> float:
        """Time that a board computes, in ms: the compute share, or all of a teacher's latency."""
        return self.total_ms if self.compute_ms is None else self.compute_ms

    @property
    def beyond_compute_ms(self) -> float:
        """The rest of the latency, in ms: the communication share, or none of a teacher's."""
        return 0.0 if self.communication_ms is None else self.communication_ms


class Sharing(Record):
    """How many students at once on the fast device take as long as one on the slow device."""

    slow_device: str = Field(description="Device that runs one student.")
    fast_device: str = Field(description="Device that runs several at once.")
    students_at_once: int = Field(ge=2, description="How many.")
    macs: PositiveInt = Field(description="Multiply-accumulates per image of each student.")
    source: str = Field(description="Where the fact is from.")


class HostFacts(Record):
    """What was measured on the host."""

    device: str = Field(description="Device of the host.")
    fc_ms: PositiveFloat = Field(description="Final fully-connected layer, in ms per image.")
    fc_source: str = Field(description="Where that figure is from.")
    model_ms: PositiveFloat = Field(description="A whole model on the host, in ms per image.")
    model_macs: PositiveInt = Field(description="Multiply-accumulates of that model.")
    model_source: str = Field(description="Where that figure is from.")


class Microcontroller(Record):
    """One benchmark result of a microcontroller."""

    device: str = Field(description="Device of the library it stands for.")
    macs_per_inference: PositiveInt = Field(description="Multiply-accumulates per inference.")
    inferences_per_s: PositiveFloat = Field(description="Inferences per second.")
    energy_per_inference_mj: PositiveFloat = Field(description="Energy of an inference, in mJ.")
    source: str = Field(description="Where these facts are from.")


class PublishedFacts(Document):
    """All published facts; each part names its source."""

    devices: tuple[DeviceFacts, ...] = Field(description="The devices of the library.")
    traffic: Traffic = Field(description="Sizes of the messages in the deployments.")
    deployments: tuple[Deployment, ...] = Field(description="Rows of the deployment tables.")
    sharing: Sharing = Field(description="What several students at once cost.")
    host: HostFacts = Field(description="What was measured on the host.")
    microcontroller: Microcontroller = Field(description="What was measured on one.")

    def device(self, name: str) -> DeviceFacts:
        """Return the facts of the device called `name`; raises ProfileError without any."""
        for facts in self.devices:
            if facts.name == name:
                return facts
        raise ProfileError("no published facts for this device", found=name)

    def deployments_on(self, device: str) -> tuple[Deployment, ...]:
        """Return the rows measured on `device`, in the file's order."""
        return tuple(row for row in self.deployments if row.device == device)


@cache
def published_facts() -> PublishedFacts:
    """Return the facts in the package's `data/published.yaml`."""
    text = (files("profiles") / "data" / "published.yaml").read_text(encoding="utf-8")
    return PublishedFacts.check(yaml.safe_load(text), where="published.yaml")
