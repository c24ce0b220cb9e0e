"""The command as a whole: errors, exit codes, start-up, interruption, full disks."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import typer

from nonn_common.errors import (
    BoardError,
    InfeasibleError,
    InputError,
    NonnError,
    PartitionError,
    PlanningError,
    ProfileError,
    SimulationError,
    StoppedError,
    TrainingError,
    UnprovenError,
)
from nonn_plan.cli.app import COMMANDS, commands, exit_code
from nonn_plan.cli.help_page import PANELS
from nonn_plan.cli.output import Output, WorkLog, format_estimate


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError, 2),
        (ProfileError, 2),
        (InfeasibleError, 3),
        (UnprovenError, 4),
        (NonnError, 1),
        (StoppedError, 1),
        (PlanningError, 1),
        (SimulationError, 1),
        (PartitionError, 1),
        (TrainingError, 1),
        (BoardError, 1),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error("what")) == code


def test_wrong_usage_is_exit_code_2(nonn_plan):
    assert nonn_plan("plan").code == 2
    assert nonn_plan("dance").code == 2
    assert nonn_plan("simulate", "plan.json", "--inferences", "0").code == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "the whole file"),
        ('{"schema_version": 2}', "schema_version"),
    ],
)
def test_a_file_that_is_no_plan(nonn_plan, tmp_path, content, told):
    path = tmp_path / "plan.json"
    path.write_text(content)
    said = nonn_plan("simulate", path)
    assert said.code == 2
    assert told in said.err
    assert str(path) in said.err
    assert said.err.count("\n") == 1


def test_an_unknown_field_is_named(nonn_plan, plan_file):
    plan = json.loads(plan_file.read_text())
    plan["question"]["colour"] = "red"
    plan_file.write_text(json.dumps(plan))
    said = nonn_plan("explain", plan_file)
    assert said.code == 2
    assert "question.colour" in said.err


@pytest.mark.parametrize(
    "code",
    [
        "import simulator.engine.simulation",
        "import planner.solve",
        "from nonn_plan.cli.app import commands; commands()",
        "import sys; sys.argv = ['nonn-plan', '--help']; from nonn_plan.cli.app import commands\n"
        "try: commands()()\nexcept SystemExit: pass",
    ],
)
def test_what_must_start_fast_loads_no_torch(code):
    unwanted = ["torch", "fvcore"] + ([] if "planner" in code else ["ortools"])
    _python(f"{code}\nimport sys\nfound = set({unwanted}) & set(sys.modules)\nassert not found")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_alone_is_the_one_that_all_of_them_have(command):
    alone = typer.main.get_command(commands(command))
    assert list(alone.commands) == [command]
    assert command in typer.main.get_command(commands()).commands


def test_planning_loads_no_other_command(plan_arguments):
    arguments = ["nonn-plan", *map(str, plan_arguments)]
    _python(
        f"import sys; sys.argv = {arguments!r}\nfrom nonn_plan.__main__ import run\n"
        "try: run()\nexcept SystemExit: pass\n"
        "needless = {'nonn_plan.cli.commands.published', 'scipy.optimize', 'nonn_core.recipe'}\n"
        "assert not needless & set(sys.modules)"
    )


def test_planning_loads_no_torch_pandas_or_scipy(plan_arguments):
    arguments = ["nonn-plan", *map(str, plan_arguments)]
    _python(
        f"import sys; sys.argv = {arguments!r}\nfrom nonn_plan.__main__ import run\n"
        "try: run()\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        "assert not {'torch', 'pandas', 'scipy'} & set(sys.modules)\n"
        "import pandas; assert pandas.Series([2, 3]).sum() == 5"
    )


def test_a_full_disk_leaves_the_old_file_and_nothing_else(plan_file, plan_arguments, tmp_path):
    """The system refuses to write more than 200 bytes: one message, no half file."""
    before = plan_file.read_bytes()

    def starve():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    done = subprocess.run(
        [sys.executable, "-m", "nonn_plan", *map(str, plan_arguments)],
        preexec_fn=starve, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert plan_file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["partition.json", "plan.json"]


def test_what_stops_the_program_says_what_is_kept():
    with (
        pytest.raises(StoppedError, match="stopped by Ctrl-C; the plan is kept"),
        Output(as_json=False).progress("the plan is kept") as progress,
    ):
        progress("counting", 1, 2)
        raise StoppedError("stopped by Ctrl-C")


# Announces itself when the solver starts, so that the test needs no clock.
SOLVE_LONG = """
import sys
from planner.solvers import CpSolver
ask = CpSolver.solve
def announced(solver, model):
    print("solving", file=sys.stderr, flush=True)
    return ask(solver, model)
CpSolver.solve = announced
from nonn_plan.__main__ import run
run()
"""


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]
)
def test_a_signal_ends_the_solver_and_leaves_nothing(tmp_path, partition_document, number, told):
    """Many unlike boards take long to prove; stopped, there is one message and no file."""
    partition = tmp_path / "partition.json"
    partition.write_text(json.dumps(partition_document))
    process = subprocess.Popen(
        [sys.executable, "-c", SOLVE_LONG, "plan", partition, "--fleet",
         "rpi-3b*9,odroid-xu4s*9", "--teacher-network", "wrn40-4", "--image", "3x32x32",
         "--classes", "10", "--memory", "2MB", "--flops", "150M", "--students", "2:4",
         "--objective", "latency,energy,imbalance", "-o", tmp_path / "plan.json"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline() == "solving\n"
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 1
    assert f"stopped by {told}; no plan was written" in err
    assert "Traceback" not in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["partition.json"]


def test_after_a_solve_signals_still_reach_python(plan_arguments):
    arguments = ["nonn-plan", *map(str, plan_arguments)]
    _python(
        f"import os, signal, sys; sys.argv = {arguments!r}\n"
        "from nonn_plan.__main__ import run\nfrom nonn_common.errors import StoppedError\n"
        "try: run()\nexcept SystemExit: pass\n"
        "try: os.kill(os.getpid(), signal.SIGINT); signal.pause()\n"
        "except StoppedError: sys.exit(0)\nsys.exit(1)"
    )


@pytest.mark.parametrize(("redirect", "code"), [("> /dev/full", 1), (">&-", 0)])
def test_a_full_or_closed_stdout_is_no_traceback(redirect, code):
    line = f'exec "{sys.executable}" -m nonn_plan devices --json {redirect}'
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_package(nonn_plan):
    assert nonn_plan("--version").out.strip() == version("nonn-plan")


def test_json_keeps_words_off_stdout(capsys):
    output = Output(as_json=True)
    output.say("a word")
    output.table("title", ("a", "b"), [("x", "1")])
    output.result({"a": "µ"})
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": "µ"}
    assert "a word" in said.err
    assert "title" in said.err


def test_warnings_are_read_by_people_and_by_programs(capsys):
    output = Output(as_json=True)
    output.warn("one image only")
    output.result({"a": 1, "warnings": ["of the measurement"]})
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": 1, "warnings": ["of the measurement", "one image only"]}
    assert said.err == "Warning: one image only\n"


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        ((94.3217, 94.1043, 94.5391), ("94.32", "94.10 to 94.54")),
        ((97.8821, 96.2019, 98.9317), ("97.9", "96.2 to 98.9")),
        ((58.3, 33.3333, 97.2), ("58", "33 to 97")),
        ((100 / 3, 100 / 3, 100 / 3), ("33.33", "33.33 to 33.33")),
    ],
)
def test_an_estimate_has_the_digits_that_its_interval_bears(estimate, shown):
    # JCGM 100:2008, 7.2.6: an uncertainty has two digits, and the estimate as many decimals.
    assert format_estimate(*estimate) == shown


def _python(code):
    """Run code in a fresh interpreter; it must succeed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_log_has_what_is_done_and_what_is_left(monkeypatch, capsys):
    monkeypatch.setattr("nonn_plan.cli.output.LOG_INTERVAL_S", 0.02)
    with Output(as_json=False).progress("nothing was kept") as progress:
        progress("training", 3, 60)
        time.sleep(0.2)
    assert re.search(r"^training: 3 of 60, for 0 s$", capsys.readouterr().err, re.MULTILINE)


def test_what_is_left_goes_by_the_pace_of_such_work():
    log = WorkLog(0.0)
    log.note("training", 10, 60, 100.0)
    log.note("training", 20, 60, 220.0)
    assert log.line(220.0) == "training: 20 of 60, about 8.0 min left"
    log.note("testing", 0, 4, 230.0)
    assert log.line(290.0) == "testing: 0 of 4, for 1.0 min"
    log.note("solving cells, about 3 min left", 5, 9, 300.0)
    assert log.line(301.0) == "solving cells: 5 of 9, about 3 min left"


def test_the_help_has_all_commands_in_groups_and_whole_sentences(nonn_plan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = nonn_plan("--help").out
    assert "..." not in shown.replace("[ARGS]...", "")
    places = [shown.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    for heading in dict.fromkeys(PANELS.values()):
        assert f"\n{heading}:\n" in shown
    flat = " ".join(shown.split())
    whole = typer.main.get_command(commands())
    for command in whole.commands.values():
        assert " ".join(command.help.split("\n\n")[0].split()) in flat
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_what_people_type(nonn_plan, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    said = nonn_plan(name, "--help")
    assert said.code == 0, said.err
    assert not re.search(r"<(?:str|int|float|path|bool|list)|\bint range\b", said.out)
    assert max(map(len, said.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        ("bash", ".bash_completions/nonn-plan.sh"),
        ("zsh", ".zfunc/_nonn-plan"),
        ("fish", ".config/fish/completions/nonn-plan.fish"),
    ],
)
def test_completion_is_installed_for_each_shell(tmp_path, shell, script):
    done = _completing(tmp_path, "--install-completion", shell)
    assert done.returncode == 0, done.stderr
    assert "nonn-plan" in (tmp_path / script).read_text()


def test_bash_completes_commands_and_options(tmp_path):
    _completing(tmp_path, "--install-completion", "bash")
    command = tmp_path / "bin" / "nonn-plan"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m nonn_plan "$@"\n')
    command.chmod(0o755)
    script = (
        f"PATH={command.parent}:$PATH; . {tmp_path}/.bash_completions/nonn-plan.sh\n"
        "complete -p nonn-plan\n"
        "COMP_WORDS=(nonn-plan ex); COMP_CWORD=1; COMP_LINE='nonn-plan ex'; COMP_POINT=12\n"
        '_nonn_plan_completion nonn-plan; echo "${COMPREPLY[@]}"\n'
        "COMP_WORDS=(nonn-plan plan --mem); COMP_CWORD=2; COMP_LINE='nonn-plan plan --mem'\n"
        '_nonn_plan_completion nonn-plan; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", script], capture_output=True, text=True, check=True
    )
    _, commands_found, options_found = done.stdout.splitlines()
    assert commands_found.split() == ["explain", "explore", "export"]
    assert options_found.split() == ["--memory"]


def _completing(home, *arguments):
    environment = {
        **os.environ, "HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "nonn_plan", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
