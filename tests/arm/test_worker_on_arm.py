"""Workers on an emulated 64-bit Arm machine, under the shipped unit; hosts on this one.

`make test-arm`, which sets NONN_PLAN_ARM, a folder for what is downloaded, and NONN_PLAN_DEMO, that
of a finished `make demo`.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from board_image import UNITS, checkout_entries, file, link, make_image, missing_tools
from emulated_board import EmulatedBoard, free_ports
from made_bundle import make_bundle
from safetensors.numpy import load_file
from test_worker_conformance import (  # noqa: F401  (the board has to pass them)
    IMAGE,
    PLACEMENT,
    test_a_board_with_another_name_is_no_connection,
    test_a_student_that_is_not_there_is_no_connection,
    test_images_that_a_worker_refuses_leave_its_students_missing,
    test_logits_are_those_of_the_models,
    test_many_images_on_their_way_at_once_come_back_in_order,
    test_two_hosts_are_answered_side_by_side,
)
from worker_processes import asking, keys_for

from boards.host.session import data_set_images
from boards.protocol.address import Address
from nonn_core.export.bundle import MANIFEST, Manifest

NAME = "arm-1"
OTHER = """[Service]
ExecStart=
ExecStart=/opt/nonn/bin/nonn-plan worker /var/lib/nonn/made --keys %d $WORKER
"""
"""The unit of a worker with another bundle."""

MOST_KB = 150_000
"""Memory that a worker may have resident: docs/boards.md tells 108 MB."""

SERVING_S = 900.0
"""Patience with a start: the machine may share a busy processor."""


def installed(name, students, port, keys):
    """Settings and keys of one worker, where docs/boards.md puts them."""
    options = " ".join(f"--student {each}" for each in students)
    return [
        file(f"etc/nonn/{name}.env", f"WORKER={options} --listen 0.0.0.0:{port}\n"),
        *(
            file(f"etc/nonn/keys/{name}/{each.name}", each.read_bytes(), 0o600)
            for each in (keys / name).iterdir()
        ),
    ]


def copied(bundle, place):
    return [
        file(f"var/lib/nonn/{place}/{each.name}", each.read_bytes()) for each in bundle.iterdir()
    ]


@pytest.fixture(scope="module")
def settings():
    """Folders of downloads and of the demo."""
    found = [os.environ.get(name) for name in ("NONN_PLAN_ARM", "NONN_PLAN_DEMO")]
    if not all(found):
        pytest.skip("NONN_PLAN_ARM or NONN_PLAN_DEMO names no folder: `make test-arm`")
    if missing := missing_tools():
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    return [Path(each).absolute() for each in found]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Bundle of the conformance suite, and keys of all boards."""
    folder = tmp_path_factory.mktemp("made")
    manifest = make_bundle(folder / "bundle", filters=(5, 3, 4), image=IMAGE)
    return folder / "bundle", manifest, keys_for(folder / "keys", NAME, *PLACEMENT)


@pytest.fixture(scope="module")
def bundle(settings, tmp_path_factory):
    """Bundle of the demo's first run."""
    place, demo = tmp_path_factory.mktemp("demo") / "bundle", settings[1]
    command = [sys.executable, "-m", "nonn_plan", "export", str(demo / "runs" / "nonn-0")]
    command += ["-o", str(place), "--plan", str(demo / "plan.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return place, Manifest.read(place / MANIFEST)


@pytest.fixture(scope="module")
def board(settings, bundle, made, tmp_path_factory):
    """A machine that was just switched on; one worker is enabled, two are installed."""
    kernel, image = make_image(settings[0])
    ports = free_ports(6)
    placement = {NAME: [model.name for model in bundle[1].models], **PLACEMENT}
    own = checkout_entries(settings[0]) + copied(bundle[0], "bundle") + copied(made[0], "made")
    for (name, students), port in zip(placement.items(), ports[::2], strict=True):
        own += installed(name, students, port, made[2])
    own += [file(f"{UNITS}/nonn-worker@{name}.service.d/made.conf", OTHER) for name in PLACEMENT]
    unit = f"nonn-worker@{NAME}.service"
    own += [link(f"{UNITS}/multi-user.target.wants/{unit}", f"/{UNITS}/nonn-worker@.service")]
    machine = EmulatedBoard(kernel, image, own, ports, tmp_path_factory.mktemp("machine"))
    try:
        machine.wait_for_shell(SERVING_S)
        workers = {
            name: SimpleNamespace(name=name, students=students, address=Address("127.0.0.1", port))
            for (name, students), port in zip(placement.items(), ports[::2], strict=True)
        }
        yield SimpleNamespace(machine=machine, workers=workers)
    finally:
        machine.end()


def serving_s(machine, name):
    """Seconds from power-on until a worker serves, by the board's clock."""
    end = time.monotonic() + SERVING_S
    while time.monotonic() < end:
        said = machine.run(f"journalctl -u nonn-worker@{name} -o short-monotonic --no-pager")
        for line in said.splitlines():
            if "serving" in line:
                return float(line.strip("[ ").split("]")[0])
        time.sleep(2)
    raise AssertionError(said)


@pytest.fixture(scope="module")
def started(board):
    """The worker of the demo's students, which systemd started."""
    seconds, processor_s = serving_s(board.machine, NAME), board.machine.processor_s()
    told(f"serving {seconds:.0f} s after power-on; {processor_s:.0f} s of this machine's processor")
    return board.workers[NAME]


@pytest.fixture(scope="module")
def workers(board, started):
    """Workers of the conformance suite, started once the first one serves."""
    found = [board.workers[name] for name in PLACEMENT]
    board.machine.run(f"systemctl start {' '.join(f'nonn-worker@{each}' for each in PLACEMENT)}")
    for worker in found:
        serving_s(board.machine, worker.name)
    return found


def told(sentence):
    """Show a measured figure, with `pytest -s`."""
    sys.stdout.write(f"\n{sentence}\n")


def resident_kb(machine, name):
    pid = machine.run(f"systemctl show --property MainPID --value nonn-worker@{name}").strip()
    status = machine.run(f"cat /proc/{pid}/status")
    return {
        line.split(":")[0]: int(line.split()[1])
        for line in status.splitlines()
        if line.startswith(("VmRSS", "RssAnon", "RssFile"))
    }


def labels_here(bundle, manifest, images):
    """Labels by onnxruntime and the FC layer on this machine, of the planned models."""
    features = []
    for model in manifest.models:
        (planned,) = (each for each in model.files if each.precision == model.planned)
        session = onnxruntime.InferenceSession(
            bundle / planned.file, providers=["CPUExecutionProvider"]
        )
        features.append(session.run(None, {model.reads.name: images})[0])
    layer = load_file(bundle / "fc.safetensors")
    return (np.concatenate(features, axis=1) @ layer["weight"].T + layer["bias"]).argmax(axis=1)


@pytest.mark.parametrize("wire", ["frames", "standard"])
def test_450_labels_of_an_arm_board_are_those_of_this_machine(board, started, bundle, made, wire):
    place, manifest = bundle
    sent = [each.pixels for each in data_set_images(manifest, None).images]
    expected = labels_here(place, manifest, np.concatenate(sent))
    protocol = "fastest" if wire == "frames" else wire
    with asking(place, manifest, made[2], [started], protocol=protocol) as client:
        assert client.protocols == {NAME: wire}
        before_s = board.machine.processor_s()
        answers = [client.ask(image) for image in sent]
        took_s = board.machine.processor_s() - before_s
    told(f"{wire}: {len(sent)} images in {took_s:.1f} s of this machine's processor")
    assert not any(answer.missing for answer in answers)
    assert [int(answer.logits.argmax()) for answer in answers] == expected.tolist()
    assert len(expected) == 450


def test_a_worker_stays_small_and_within_its_unit(board, started):
    resident = resident_kb(board.machine, NAME)
    told(f"resident: {resident}")
    assert resident["VmRSS"] < MOST_KB
    assert board.machine.run("uname -m").strip() == "aarch64"
    unit = board.machine.run(f"systemctl show nonn-worker@{NAME} -p NRestarts,DynamicUser,Result")
    assert set(unit.split()) == {"NRestarts=0", "DynamicUser=yes", "Result=success"}
    said = board.machine.run(f"journalctl -u nonn-worker@{NAME} --no-pager")
    assert "telemetry" not in said
    assert "systemd" in said


def test_a_worker_that_was_killed_is_there_again(board, started, bundle, made):
    place, manifest = bundle
    board.machine.run(f"systemctl kill --signal=KILL nonn-worker@{NAME}")
    image = next(iter(data_set_images(manifest, None).images)).pixels
    with asking(place, manifest, made[2], [started], connected=False) as client:
        end = time.monotonic() + SERVING_S
        while client.ask(image).missing and time.monotonic() < end:
            time.sleep(2)
        assert not client.ask(image).missing
