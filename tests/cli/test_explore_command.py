"""`explore` as people run it: grids, fronts, break-points, kills, clusters, and mistakes."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.csv
import pyarrow.parquet
import pytest

GRID = ("--memory", "250KB:500KB:250KB", "--flops", "60M,200M")


@pytest.fixture
def arguments(partition_file, tmp_path):
    return [
        "explore", partition_file, "--image", "3x32x32", "--classes", "10",
        "--student", "wrn16:32,64,64", "--student", "wrn16:16,32,64", "--students", "2",
        "--precision", "int8", "-o", tmp_path / "explore", "--jobs", "1",
    ]  # fmt: skip


def values(document):
    return [
        (cell["place"], cell["found"]["status"], cell["found"]["values"])
        for cell in document["cells"]
    ]


def page_data(page):
    """Data of a page, as its program reads them."""
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


def test_a_grid_over_two_fleets(nonn_plan, arguments, tmp_path):
    asked = [*arguments, *GRID, "--fleet", "rpi3x2", "--fleet", "rpi-3b,odroid-xu4s"]
    said = nonn_plan(*asked, "--objective", "latency", "--json")
    assert said.code == 0, said.err
    assert len(said.document["cells"]) == 8
    out = tmp_path / "explore"
    assert json.loads((out / "explore.json").read_text()) == said.document
    table = pyarrow.csv.read_csv(out / "cells.csv")
    assert table.num_rows == 8
    assert {"memory_bytes", "flops", "latency_ms", "status"} <= set(table.column_names)
    assert pyarrow.parquet.read_table(out / "cells.parquet").num_rows == 8
    page = (out / "index.html").read_text()
    assert "http" not in page
    data = page_data(page)
    assert [row["values"].get("latency") for row in data["rows"]] == [
        cell["found"]["values"].get("latency") for cell in said.document["cells"]
    ]
    assert {row["memory"] for row in data["rows"]} == {"250 KB", "500 KB"}
    assert {row["flops"] for row in data["rows"]} == {"60 MFLOP", "200 MFLOP"}
    for row in data["rows"]:
        assert {"latency", "boards", "students"} <= row["values"].keys()
        assert [network for _, network, _ in row["students"]]
    for name in said.document["pictures"]:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    plan = nonn_plan(
        "plan", *arguments[1:-4], "--fleet", "rpi3x2", "--memory", "500KB", "--flops", "200M",
        "--objective", "latency", "--json", "-o", tmp_path / "plan.json",
    )  # fmt: skip
    place = {"fleet": "rpi3x2", "memory_bytes": 500_000, "flops": 200_000_000}
    (alike,) = [
        cell["found"]["values"]["latency"]
        for cell in said.document["cells"]
        if place.items() <= cell["place"].items()
    ]
    assert alike == pytest.approx(plan.document["stages"][0]["value"])


def test_a_grid_over_power_limits_of_boards_whose_clocks_are_open(nonn_plan, arguments, tmp_path):
    said = nonn_plan(
        *arguments, "--fleet", "rpi3x2:any", "--power", "2W:4W:1W", "--objective", "latency",
        "--pareto", "latency,energy", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    plans = [cell for cell in said.document["cells"] if cell["found"]["kind"] == "plan"]
    assert [(cell["place"]["power_w"], cell["found"]["status"]) for cell in plans] == [
        (2.0, "infeasible"),
        (3.0, "optimal"),
        (4.0, "optimal"),
    ]
    slow, quick = (cell["found"]["values"]["latency"] for cell in plans[1:])
    assert quick < 0.5 * slow
    table = pyarrow.csv.read_csv(tmp_path / "explore" / "cells.csv")
    assert table.column("power_w").to_pylist() == [2.0, 3.0, 4.0]
    fronts = [cell["found"]["points"] for cell in said.document["cells"][3:]]
    at = [{name for point in front for name in point["points"]} for front in fronts]
    assert at == [set(), {"rpi-3b"}, {"rpi-3b-1200mhz"}]


def test_infeasible_cells_are_results(nonn_plan, arguments, tmp_path):
    said = nonn_plan(*arguments, "--fleet", "rpi3x2", "--memory", "10KB,500KB", "--json")
    assert said.code == 0, said.err
    assert [status for _, status, _ in values(said.document)] == ["infeasible", "optimal"]
    assert said.document["cells"][0]["found"]["conflict"]
    assert [cell["found"]["refusal"] for cell in said.document["cells"]] == ["certified", None]
    rows = page_data((tmp_path / "explore" / "index.html").read_text())["rows"]
    assert [row["refusal"] for row in rows] == ["certified by prices in whole numbers", ""]


def test_why_a_cell_has_no_plan_comes_before_where_the_answers_are(nonn_plan, arguments):
    said = nonn_plan(*arguments, "--fleet", "rpi3x2", "--memory", "10KB,11KB,500KB")
    assert said.code == 0, said.err
    why, where = (
        said.out.index("2 of 3 infeasible; with memory 11 KB these cannot"),
        said.out.index("written"),
    )
    assert why < said.out.index("  - memory budget of rpi-3b-1: 11.0 KB") < where
    assert "infeasible cells: 2 certified by prices in whole numbers" in said.out


def test_no_cell_feasible_is_exit_code_3_and_no_proof_4(nonn_plan, arguments):
    refused = nonn_plan(*arguments, "--fleet", "rpi3x2", "--memory", "10KB")
    assert refused.code == 3
    assert 0 < refused.out.index("memory budget of rpi-3b-1") < refused.out.index("written to")
    limited = nonn_plan(*arguments, "--fleet", "rpi3x2", "--limit", "1e-9", "--json")
    assert limited.code == 4
    assert [status for _, status, _ in values(limited.document)] == ["unproven"]


def test_a_front_and_break_points(nonn_plan, arguments, tmp_path):
    said = nonn_plan(
        *arguments, "--fleet", "rpi3x2", "--memory", "300KB:500KB", "--objective", "capacity",
        "--pareto", "latency,capacity", "--breakpoints", "memory", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    kinds = [cell["found"]["kind"] for cell in said.document["cells"]]
    assert kinds == ["plan", "plan", "front", "front", "breakpoints"]
    points = [one["values"] for one in said.document["cells"][3]["found"]["points"]]
    assert len(points) > 1
    pairs = sorted((one["latency"], one["capacity"]) for one in points)
    assert pairs == sorted(pairs, key=lambda pair: pair[1])
    steps = said.document["cells"][4]["found"]["breakpoints"]
    assert all(300_000 <= step["least"] <= 500_000 for step in steps)
    assert "status" in (tmp_path / "explore" / "breakpoints.csv").read_text().splitlines()[0]
    for name in ("front.csv", "breakpoints.csv", "front.parquet", "breakpoints.parquet"):
        assert (tmp_path / "explore" / name).exists()


def test_a_range_of_break_points_ends_where_it_was_typed_to(nonn_plan, arguments):
    said = nonn_plan(
        *arguments, "--fleet", "rpi3x2", "--memory", "300KB:500KB:110KB", "--objective", "capacity",
        "--breakpoints", "memory", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    steps = said.document["cells"][-1]["found"]["breakpoints"]
    assert any(step["least"] > 410_000 for step in steps)


def test_the_same_command_solves_nothing_again_but_damaged_cells(
    nonn_plan, arguments, tmp_path, monkeypatch
):
    asked = [*arguments, "--fleet", "rpi3x2", "--memory", "400KB,500KB", "--json"]
    first = nonn_plan(*asked)
    cells = sorted((tmp_path / "explore" / "cells").iterdir())
    cells[0].write_text("{")
    again = nonn_plan(*asked)
    assert again.code == 0, again.err
    assert again.document == first.document
    assert "1 of 2 cells had been solved before" in again.err
    monkeypatch.setattr("planner.exploration.cell.solve", None)
    assert nonn_plan(*asked).document == first.document


def started(arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "nonn_plan", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for_cells(running, folder, count):
    while running.poll() is None and len(list(folder.glob("[!.]*.json"))) < count:
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on(nonn_plan, arguments, tmp_path, number):
    many = ["--fleet", "rpi3x2", "--memory", "380KB:500KB:5KB", "--objective", "latency,capacity"]
    cells = tmp_path / "explore" / "cells"
    running = started([*arguments, *many])
    wait_for_cells(running, cells, 2)
    running.send_signal(number)
    _, said = running.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in cells.glob("[!.]*.json")}
    assert 2 <= len(kept) < 25
    if number == signal.SIGINT:
        assert running.returncode == 1
        assert "stopped by Ctrl-C; finished cells are under" in said
    after = nonn_plan(*arguments, *many, "--json")
    assert after.code == 0, after.err
    assert len(after.document["cells"]) == 25
    assert f"{len(kept)} of 25 cells had been solved before" in after.err
    assert all((cells / name).stat().st_mtime_ns == when for name, when in kept.items())


def test_processes_and_a_dask_cluster_find_the_same(nonn_plan, replaced, arguments, tmp_path):
    asked = [*arguments[:-2], "--fleet", "rpi3x2", *GRID, "--objective", "latency", "--json"]
    here = nonn_plan(*asked, "--jobs", "2")
    assert here.code == 0, here.err
    scheduler_file = tmp_path / "scheduler.json"
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": dict(os.environ)}
    processes = [
        subprocess.Popen(
            [*base, "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
             "--scheduler-file", scheduler_file], **quiet,
        )
    ]  # fmt: skip
    try:
        while not scheduler_file.exists():
            assert processes[0].poll() is None
            time.sleep(0.05)
        processes += [
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file",
                 scheduler_file, "--nthreads", "1", "--no-dashboard", "--no-nanny",
                 "--local-directory", tmp_path / f"worker-{number}"], **quiet,
            )
            for number in range(2)
        ]  # fmt: skip
        address = json.loads(scheduler_file.read_text())["address"]
        away = tmp_path / "away"
        there = nonn_plan(*replaced(asked, "-o", away, "--dask", address))
        assert there.code == 0, there.err
    finally:
        for one in processes:
            one.kill()
        for one in processes:
            one.wait()
    assert values(there.document) == values(here.document)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--memory", "500KB:300KB:50KB"], "ends before it starts"),
        (["--memory", "300KB:500KB"], "START:STOP:STEP"),
        (["--memory", "1KB:1GB:1B"], "too many values"),
        (["--memory", "nobody=300KB"], "no fleet has this board"),
        (["--flops", "much"], "--flops much"),
        (["--pareto", "latency"], "two or more"),
        (["--front-step", "5%"], "--front-step: goes with --pareto"),
        (["--memory", "300KB:200KB:50KB"], "allowed: START:STOP:STEP with START up to STOP"),
        (["--pareto", "latency,speed"], "--pareto: not an objective"),
        (["--breakpoints", "energy"], "--breakpoints: not a budget; found 'energy'; allowed"),
        (["--minimise", "speed"], "--minimise: not an objective; found 'speed'"),
        (["--breakpoints", "memory"], "needs a range"),
        (["--minimise", "latency", "--objective", "capacity"], "in place of"),
        (["--fleet", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_exit_code_2(nonn_plan, arguments, wrong, said, tmp_path):
    found = nonn_plan(*arguments, "--fleet", "rpi3x2", *wrong)
    assert found.code == 2
    assert said in found.err
    assert not (tmp_path / "explore" / "explore.json").exists()


def test_a_cluster_that_is_not_there(nonn_plan, arguments, monkeypatch):
    monkeypatch.setattr("planner.exploration.cell._CONNECT_S", 0.2)
    asked = [*arguments[:-2], "--fleet", "rpi3x2"]
    found = nonn_plan(*asked, "--dask", "tcp://127.0.0.1:9")
    assert found.code == 2
    assert "no Dask scheduler answers" in found.err
    monkeypatch.setitem(sys.modules, "distributed", None)
    missing = nonn_plan(*asked, "--dask", "tcp://127.0.0.1:9")
    assert missing.code == 2
    assert "nonn-plan[dask]" in missing.err


def test_what_is_not_an_exploration_is_not_replaced(nonn_plan, arguments, tmp_path):
    out = tmp_path / "explore"
    out.mkdir()
    (out / "index.html").write_text("mine")
    found = nonn_plan(*arguments, "--fleet", "rpi3x2")
    assert found.code == 2
    assert (out / "index.html").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("mine")
    assert nonn_plan(*arguments, "--fleet", "rpi3x2", "-o", file).code == 2


def test_a_page_of_another_question_is_replaced_with_a_word(nonn_plan, arguments):
    """A grid that grows keeps all that was shown, and needs no word."""
    one = (*arguments, "--fleet", "rpi3x2", "--memory")
    assert nonn_plan(*one, "500KB").code == 0
    grown = nonn_plan(*one, "250KB,500KB")
    assert "another question" not in grown.out + grown.err
    said = nonn_plan(*one, "400KB", "--json")
    assert said.code == 0, said.err
    [text] = [each for each in said.document["warnings"] if "another question" in each]
    assert "cells stay solved" in text
    again = nonn_plan(*one, "250KB,500KB")
    assert "2 of 2 cells had been solved before" in again.out + again.err


def test_a_grid_of_percentiles_says_whose_spread_is_unknown(nonn_plan, arguments):
    said = nonn_plan(*arguments, "--fleet", "rpi-4b*2", "--objective", "latency-p95", "--json")
    assert said.code == 0, said.err
    assert any("no spread is known of rpi-4b" in text for text in said.document["warnings"])


def test_many_rows_are_summed_up_in_forty_lines_and_stand_in_the_files(
    nonn_plan, arguments, tmp_path
):
    said = nonn_plan(
        *arguments, "--fleet", "rpi3x2", "--memory", "10KB,950KB:1050KB:20KB", "--flops",
        "100M:200M:10M", "--objective", "latency", "--pareto", "latency,capacity", "--front-step",
        "40%",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) <= 40
    assert "Summary: 154 cells in 2 groups" in said.out
    out = tmp_path / "explore"
    data = page_data((out / "index.html").read_text())
    assert "1050 KB" in {row["memory"] for row in data["rows"]}
    points = [row for row in data["rows"] if "point" in row]
    assert sum(row["shown"] for row in points) > 0
    assert pyarrow.csv.read_csv(out / "front.csv").num_rows == len(points)
    assert all({"latency", "boards", "students"} <= row["values"].keys() for row in points)


def test_a_grid_over_flash_and_ram_has_the_plans_of_single_questions(
    nonn_plan, arguments, tmp_path
):
    """Students of 98 KB of RAM; each cell is what `plan` finds under its budgets."""
    boards = ("--fleet", "stm32l4r5zi*2", "--objective", "capacity")
    grid = ("--flash", "100KB,1MB", "--ram", "60KB:160KB:50KB")
    said = nonn_plan(*arguments, *boards, *grid, "--json")
    assert said.code == 0, said.err
    cells = said.document["cells"]
    at = [(cell["place"]["flash_bytes"], cell["place"]["ram_bytes"]) for cell in cells]
    assert at == [(f, r) for f in (100_000, 1_000_000) for r in (60_000, 110_000, 160_000)]
    for cell in cells[1::2]:
        flash, ram = cell["place"]["flash_bytes"], cell["place"]["ram_bytes"]
        alone = nonn_plan(
            "plan", *arguments[1:-4], *boards, "--flash", f"{flash}B", "--ram", f"{ram}B",
            "--json", "-o", tmp_path / "plan.json",
        )  # fmt: skip
        assert cell["found"]["status"] == alone.document["status"]
        values = [row["value"] for row in alone.document["stages"]]
        assert list(cell["found"]["values"].values())[: len(values)] == pytest.approx(values)
    assert {cell["found"]["status"] for cell in cells} == {"optimal", "infeasible"}
    assert said.document["pictures"]
    table = pyarrow.csv.read_csv(tmp_path / "explore" / "cells.csv")
    assert table.column("ram_bytes").to_pylist() == [ram for _, ram in at]
    shown = nonn_plan(*arguments, *boards, "--flash", "100KB,1MB", "--ram", "160KB")
    assert "flash" in shown.out and "160 KB" in shown.out
    refused = nonn_plan(*arguments, "--fleet", "rpi3x2", "--flash", "1MB,2MB")
    assert "flash and RAM are not apart" in refused.err
