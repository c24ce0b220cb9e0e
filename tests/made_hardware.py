"""Devices and links made for a test, with just the figures that it names."""

from profiles.device import DeviceProfile
from profiles.figure import Figure
from profiles.link import LinkProfile


def figure(value):
    return Figure(value=value, provenance="assumed", source="this test")


def device(name, hosting=None, **figures):
    return DeviceProfile(
        name=name,
        title=name,
        clock_hz=1,
        cores=1,
        ram_bytes=1,
        runtime="none",
        precision="fp32",
        hosting=hosting,
        **{key: figure(value) for key, value in figures.items()},
    )


def link(name, bits_per_s):
    return LinkProfile(name=name, title=name, bits_per_s=figure(bits_per_s))
