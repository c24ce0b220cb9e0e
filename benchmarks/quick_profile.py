"""How far off a quick profile of this machine is, beside the full one, on students held out.

    python benchmarks/quick_profile.py

The full profile's students are measured once.  Three of them, as `profile --quick` takes them, are
all that the quick profile sees; the errors of both are on students that neither fit has seen.
"""

import time
from statistics import mean, median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from boards.profiling.benchmark_model import IMAGES, TEACHERS, benchmark_models
from boards.profiling.benchmark_run import (
    QUICK_BUDGET,
    BenchmarkBudget,
    BenchmarkSettings,
    run_benchmarks,
)
from boards.profiling.machine import this_machine
from boards.profiling.profile_report import build_report
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_table
from profiles.device import model_ms

Threads = Annotated[int, typer.Option("--threads", min=1)]


def main(threads: Threads = 1) -> None:
    """Measure this machine twice, and print both profiles' errors."""
    console, machine = Console(), this_machine()
    devices, seconds, students = {}, {}, ()
    for name, budget in (("quick", QUICK_BUDGET), ("full", BenchmarkBudget())):
        settings = BenchmarkSettings(machine=machine, threads=threads, budget=budget)
        begin = time.perf_counter()
        result = run_benchmarks(settings)
        devices[name] = build_report(settings, result).device
        seconds[name] = time.perf_counter() - begin
        students = result.students.rows
    shown = {
        (student.network, student.image)
        for student in benchmark_models(TEACHERS, IMAGES, most=QUICK_BUDGET.students)
    }
    held_out = [
        row
        for row in students
        if row.student.held_out and (row.student.network, row.student.image) not in shown
    ]
    table = Table(
        "profile", "seconds", "students", "median %", "mean %", "largest %", "in interval %"
    )
    for name, device in devices.items():
        errors, inside = [], []
        for row in held_out:
            student, ms = row.student, row.timing.ms
            layers = student_table(parse_network(student.network), student.image, student.filters)
            found = model_ms(device, layers)
            errors.append(100 * abs(found.ms / ms - 1))
            if found.low_ms is not None and found.high_ms is not None:
                inside.append(found.low_ms <= ms <= found.high_ms)
        table.add_row(
            name,
            f"{seconds[name]:.0f}",
            str(len(held_out)),
            *(f"{error:.1f}" for error in (median(errors), mean(errors), max(errors))),
            f"{100 * mean(inside):.0f}" if inside else "",
        )
    console.print(f"{machine.title}, {threads} threads of each student")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
