"""Devices and links made for a test, with just the figures that it names."""

from profiles import Quantity
from profiles.device import DeviceProfile
from profiles.fleet import Fleet
from profiles.link import LinkProfile


def figure(value):
    return Quantity(value=value, provenance="assumed", source="this test")


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


def on_air(bits_per_s, *boards, **figures):
    """A fleet of boards b0, b1, ... as (device, link[, via]), with a shared medium `air`."""
    air = link("air", bits_per_s).model_dump() | {"duplex": "half", "shared": True}
    air |= {key: figure(value).model_dump() for key, value in figures.items()}
    named = [
        {"name": f"b{i}", "device": device, "link": on} | ({"via": via[0]} if via else {})
        for i, (device, on, *via) in enumerate(boards)
    ]
    content = {"name": "on-air", "title": "On air", "boards": named, "links": [air]}
    return Fleet.check(content, "this test")
