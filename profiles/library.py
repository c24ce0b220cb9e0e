"""The library: every device, link and fleet that ships with the program, by name."""

from profiles.device import DEVICES, DeviceProfile
from profiles.fleet import FLEETS, Fleet
from profiles.link import LINKS, LinkProfile


def device(name: str) -> DeviceProfile:
    """Return the device called `name`; raises ProfileError with close matches."""
    return DEVICES.get(name)


def link(name: str) -> LinkProfile:
    """Return the link called `name`; raises ProfileError with close matches."""
    return LINKS.get(name)


def fleet(name: str) -> Fleet:
    """Return the fleet called `name`; raises ProfileError with close matches."""
    return FLEETS.get(name)


def device_names() -> tuple[str, ...]:
    """Return the names of all devices, sorted."""
    return DEVICES.names()


def link_names() -> tuple[str, ...]:
    """Return the names of all links, sorted."""
    return LINKS.names()


def fleet_names() -> tuple[str, ...]:
    """Return the names of all fleets, sorted."""
    return FLEETS.names()
