"""A device of one's own: measured in a few rows, and else like a device of the library."""

from collections.abc import Mapping, Sequence
from typing import get_args

from profiles.device import DeviceProfile, FigureName
from profiles.errors import ProfileError
from profiles.measurements import Measurement
from profiles.published import DeviceFacts, HostFacts, PublishedFacts, TakenOver


def own_facts(
    rows: Sequence[Measurement], like: DeviceProfile, host: DeviceProfile
) -> tuple[PublishedFacts, Mapping[str, DeviceProfile]]:
    """Return facts of the one device that `rows` measure, and the library they lean on.

    Clock, cores, memory, runtime, precision and every figure that the rows do not tell are those
    of `like`; the host that joined the replies is `host`.  `profiles.calibrate.calibrated` and
    `profiles.leave_one_out.fitted_rows` take both.  Raises ProfileError for rows of several
    devices or of one that is called like a device it leans on, and for a host that cannot host.
    """
    names = sorted({row.device for row in rows})
    if len(names) != 1 or names[0] in (like.name, host.name):
        raise ProfileError(
            "a table for one device must measure one device, with a name of its own",
            found=", ".join(names),
            allowed=f"one name other than {like.name} and {host.name}",
        )
    if host.hosting is None:
        raise ProfileError("this device cannot be the host", found=host.name)
    described = like.model_dump(
        include={"clock_hz", "cores", "ram_bytes", "runtime", "precision", "memory_budget_bytes"}
    )
    device = DeviceFacts(
        name=names[0],
        title=f"{names[0]}, as measured",
        source=f"clock, cores and memory taken from {like.name}",
        like=(TakenOver(device=like.name, figures=get_args(FigureName)),),
        **described,
    )
    facts = PublishedFacts(
        devices=(device,),
        host=HostFacts(
            device=host.name,
            fc_ms=host.hosting.fc_ms,
            join_fixed_ms=host.hosting.join_fixed_ms,
        ),
        measurements=tuple(rows),
    )
    return facts, {like.name: like, host.name: host}
