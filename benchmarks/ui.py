"""How soon the page answers a changed budget, beside the command started anew.

    python benchmarks/ui.py

The published case: communities of 12, 14, 25 and 30 filters on two Raspberry Pi 3B.  Fifty budgets
one after the other, as a slider gives them, some of which have no plan and get their repairs.  The
server of `nonn-plan ui` runs in a process of its own; what counts is the time until the answer is
there, and the processor time of the server and its solver.  On a machine that others use, read the
processor time.
"""

import http.client
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

SIZES = (12, 14, 25, 30)
OPTIONS = {"teacher_network": "wrn40-4", "image": "3x32x32", "classes": "10", "precision": "int8"}
CHANGES = 50
COLD = 5
"""Commands that are started anew."""


def main(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure both, and show percentiles."""
    with tempfile.TemporaryDirectory() as folder:
        partition = Path(folder) / "partition.json"
        partition.write_text(json.dumps(published_partition()))
        warm = measure_page(partition)
        cold = [measure_command(partition, f"{500 - 20 * n}KB") for n in range(COLD)]
    rows = {
        "page, answer": [row for row in warm if row["status"] == "optimal"],
        "page, conflict and repairs": [row for row in warm if row["status"] == "infeasible"],
        "page, all": warm,
        "command, started anew": cold,
    }
    found = {
        name: {
            "changes": len(each),
            **{f"{kind}_p50": percentile(each, kind, 50) for kind in ("wall_ms", "cpu_ms")},
            **{f"{kind}_p95": percentile(each, kind, 95) for kind in ("wall_ms", "cpu_ms")},
        }
        for name, each in rows.items()
    }
    if as_json:
        print(json.dumps({"python": platform.python_version(), "rows": found}, indent=2))
        return
    table = Table("", "changes", "wall p50, ms", "p95", "processor p50, ms", "p95")
    for name, row in found.items():
        figures = (row["wall_ms_p50"], row["wall_ms_p95"], row["cpu_ms_p50"], row["cpu_ms_p95"])
        table.add_row(name, str(row["changes"]), *(f"{value:.0f}" for value in figures))
    Console().print(table)


def published_partition() -> dict[str, Any]:
    """Partition of the published case, without a teacher."""
    start, communities = 0, []
    for number, size in enumerate(SIZES):
        filters = list(range(start, start + size))
        communities.append({"id": number, "filters": filters, "linked": True})
        start += size
    nothing = {"communities": [], "filters": 0, "accuracy_pct": None, "delta_val_pct": None}
    facts = {"teacher": None, "rule": "AH", "gamma": 1.0, "seed": 0, "filters": start}
    facts |= {"images": None, "modularity": 0.5}
    return facts | {"communities": communities, "drop_steps": [nothing]}


def measure_page(partition: Path) -> list[dict[str, Any]]:
    """Ask the page fifty changes, after one that warms it up."""
    command = [sys.executable, "-m", "nonn_plan", "ui", str(partition), "--json"]
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        told = b""
        while server.stdout is not None and b"}" not in told:
            told += server.stdout.readline()
        address = urlsplit(json.loads(told)["address"])
        try:
            question = _get(address, "opened")["question"]
            question["options"] = OPTIONS
            ask(address, server.pid, question, ("500KB", "500KB"), "200M")
            return [
                ask(address, server.pid, question, budgets, flops) for budgets, flops in changes()
            ]
        finally:
            server.terminate()


def changes() -> list[tuple[tuple[str, str], str]]:
    """Budgets as two sliders give them: memory of both boards and of one, and FLOPs."""
    draw = np.random.default_rng(1)
    found = []
    for _ in range(CHANGES):
        both, one = draw.uniform(90, 700, 2)
        flops = draw.choice([40, 60, 100, 200, 400])
        memory = f"{both:.0f}KB", f"{one if draw.random() < 0.3 else both:.0f}KB"
        found.append((memory, f"{flops}M"))
    return found


def _get(address: Any, path: str) -> Any:
    connection = http.client.HTTPConnection(address.netloc)
    connection.request("GET", address.path + path)
    return json.loads(connection.getresponse().read())


def ask(
    address: Any, server: int, question: dict[str, Any], memory: Sequence[str], flops: str
) -> dict[str, Any]:
    """Ask with these budgets, up to the answer; what follows it is not asked for."""
    for board, size in zip(question["boards"], memory, strict=True):
        board["budgets"] = {"memory": size, "flops": flops}
    connection = http.client.HTTPConnection(address.netloc)
    headers = {"Content-Type": "application/json", "Origin": f"http://{address.netloc}"}
    time.sleep(0.2)  # as people do; and a solver that starts is not counted
    before, began = processor_ms(server), time.perf_counter()
    body = json.dumps({"question": question})
    connection.request("POST", address.path + "answer", body, headers)
    lines = connection.getresponse().read().splitlines()
    wall_ms = 1000 * (time.perf_counter() - began)
    answer = json.loads(lines[-1])
    cpu_ms = processor_ms(server) - before
    return {"status": answer.get("status"), "wall_ms": wall_ms, "cpu_ms": cpu_ms}


def processor_ms(server: int) -> float:
    """Processor time of a server and its processes, in ms."""
    process = psutil.Process(server)
    every = [process, *process.children(recursive=True)]
    return 1000 * sum(sum(one.cpu_times()[:2]) for one in every)


def measure_command(partition: Path, memory: str) -> dict[str, Any]:
    """Start the command anew."""
    command = [sys.executable, "-m", "nonn_plan", "plan", str(partition), "--fleet", "rpi3x2"]
    for name, value in OPTIONS.items():
        command += [f"--{name.replace('_', '-')}", value]
    command += ["--memory", memory, "--flops", "200M", "-o", str(partition.parent / "plan.json")]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:  # noqa: S603
        process = psutil.Process(running.pid)
        cpu_ms = 0.0
        while running.poll() is None:
            with process.oneshot():
                times = process.cpu_times()
            cpu_ms = 1000 * (times.user + times.system)
            time.sleep(0.01)
    return {"wall_ms": 1000 * (time.perf_counter() - began), "cpu_ms": cpu_ms}


def percentile(rows: Sequence[dict[str, Any]], kind: str, share: float) -> float:
    """Percentile of a figure over rows, in ms."""
    return float(np.percentile([row[kind] for row in rows], share)) if rows else float("nan")


if __name__ == "__main__":
    typer.run(main)
