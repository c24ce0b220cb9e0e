"""Students at the pace of their layers, on devices whose layers were measured.

A fan-out is affine in multiply-accumulates, as plans are.  Where a device's profile knows the time
of every layer of a student, that time takes its place; what several students at once cost more
stays the device's sharing_slowdown.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from profiles.device import slowdown
from profiles.layer import LayerTable
from profiles.layer_model import model_ms
from simulator.job import Job, Step
from simulator.pace import Pace
from simulator.workload import FanOut


def by_layers(fan_out: FanOut, tables: Mapping[str, LayerTable]) -> Job:
    """Return what one image sets off, with the layer tables of students by name."""
    here = Counter(student.board for student in fan_out.students)
    names = {student.board: student.name for student in fan_out.students}
    devices = {board.name: board.device for board in fan_out.boards}
    job = fan_out.job()

    def paced(step: Step) -> Step:
        if step.activity != "compute" or step.actor not in here:
            return step
        name = step.resources[0].partition(".cpu/")[2] or names[step.actor]
        device = devices[step.actor]
        if name not in tables or model_ms(device, tables[name]).how != "per-layer":
            return step
        effort = Pace(device, tables[name]).layers(tables[name])
        factor = slowdown(device, here[step.actor])
        return replace(step, duration_ms=factor * effort.ms, energy_mj=factor * effort.mj)

    return replace(job, steps=tuple(map(paced, job.steps)))
