"""Layer cut: the first layers of a model on a board, the rest on the host.

Kang et al., "Neurosurgeon: Collaborative intelligence between the cloud and mobile edge", ASPLOS
2017.  The board has the image, computes the layers before the cut and sends all that is alive
there, shortcuts included; the host computes the others.  Nothing follows::

    latency = [fixed + layers before the cut, on the board]
            + [wire_ms(alive bytes) + latency_ms of the link + join_fixed_ms
               + fixed + layers behind the cut, on the host]
    energy  = compute energy of the board + radio_w * wire_ms(alive bytes) of its own hop

A cut of 0 sends the image; a cut behind the last layer leaves all to the board and sends nothing.
The way back of the answer, a few bytes, is left out, as published.
"""

from typing import Literal

from profiles.device import DeviceProfile
from profiles.errors import SimulationError
from profiles.fleet import Board
from profiles.layer import LayerTable
from simulator.hops import JobBuilder
from simulator.job import Job
from simulator.pace import Pace
from simulator.radio import radio_part
from simulator.splitting import alive_bytes, check, on_host, receive_ms

Aim = Literal["latency", "energy"]


def job(table: LayerTable, board: Board, host: DeviceProfile, cut: int) -> Job:
    """Return what one image sets off when `board` computes the first `cut` layers."""
    check(table, (board,))
    if not 0 <= cut <= len(table):
        raise SimulationError(f"a cut lies at 0 to {len(table)} layers; found {cut}")
    build = JobBuilder(host)
    done: tuple[int, ...] = ()
    if cut:
        pace = Pace(board.device, table)
        effort = pace.begin + pace.layers(table[:cut])
        done = (build.compute(board, ms=effort.ms, mj=effort.mj),)
    if cut < len(table):
        sent = build.reply(board, alive_bytes(table, cut), done)
        joined = build.join((sent,), ms=receive_ms(host))
        pace = Pace(host, table)
        on_host(build, pace.begin + pace.layers(table[cut:]), (joined,))
    return build.job()


def best_cut(table: LayerTable, board: Board, host: DeviceProfile, aim: Aim = "latency") -> int:
    """Return the cut of least latency, or of least energy on the board; the first of equals."""
    measure = latency_ms if aim == "latency" else board_mj
    return min(range(len(table) + 1), key=lambda cut: measure(table, board, host, cut))


def latency_ms(table: LayerTable, board: Board, host: DeviceProfile, cut: int) -> float:
    """Return the latency of one image, in ms: one step follows the other."""
    return sum(
        step.duration_ms + step.transit.latency_ms for step in job(table, board, host, cut).steps
    )


def board_mj(table: LayerTable, board: Board, host: DeviceProfile, cut: int) -> float:
    """Return the energy that one image costs the board, in mJ: computing and sending.

    Sending counts only where the device has a radio_w.
    """
    radio = board.device.radio_w
    radio_w = radio.value if radio else 0.0
    return sum(
        step.energy_mj + radio_w * radio_part(step, board.name) * step.duration_ms
        for step in job(table, board, host, cut).steps
        if step.actor == board.name
    )
