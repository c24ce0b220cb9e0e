"""A plan with G0 on a board of its own, on an emulated fleet of real workers, by the host's way."""

from contextlib import closing

import numpy as np
import onnxruntime
import pytest
from emulated_plans import bundle_of, made_fleet, made_plan
from safetensors.numpy import load_file

from boards.board_validation import compare_with_plan
from boards.emulation.emulated_fleet import emulated
from boards.host.client import QuorumPolicy
from boards.host.connection import board_tasks
from boards.host.session import open_client
from boards.protocol.address import BoardAddress, BoardAddresses
from boards.tls.identity import Identity
from nonn_common.errors import InputError
from nonn_core.export.bundle import MANIFEST, Manifest
from planner.plan_file.evaluation import plan_workload
from simulator.graph_builder import join_ms
from simulator.workloads.closed_form import fan_out_breakdown

LATE = {"name": "late", "latency_ms": 5.0, "bits_per_s": 2e6}


@pytest.fixture(scope="module")
def plan():
    """G0 and two boards with heads; each computes for 20 ms; a message of maps takes 4."""
    fleet = made_fleet([LATE] * 3, compute_ms=20.0)
    return made_plan(fleet, [("b1",), ("b2",), ("b2",)], alone="b0", image="1x8x8")


@pytest.fixture(scope="module")
def bundle(plan, tmp_path_factory):
    return bundle_of(plan, tmp_path_factory.mktemp("g0") / "bundle")


def logits(bundle, manifest, image):
    """By onnxruntime alone: G0, the heads, the FC layer."""
    values, vectors = {}, []
    for model in manifest.models:
        session = onnxruntime.InferenceSession(
            bundle / model.files[0].file, providers=["CPUExecutionProvider"]
        )
        reads = image if model.role == "group0" else values["group0"]
        (values[model.name],) = session.run(None, {"images": reads})
        vectors += [values[model.name]] if model.role == "head" else []
    layer = load_file(bundle / "fc.safetensors")
    return np.concatenate(vectors, axis=1) @ layer["weight"].T + layer["bias"]


def test_the_fleet_answers_and_takes_no_less_time_than_planned(plan, bundle):
    manifest = Manifest.read(bundle / MANIFEST)
    images = np.random.default_rng(1).uniform(0, 255, (12, 1, 1, 8, 8)).astype(np.float32)
    with (
        emulated(plan, bundle) as fleet,
        closing(
            open_client(
                plan,
                bundle,
                fleet.addresses,
                Identity.read(fleet.keys / "host"),
                QuorumPolicy(),
                "emulated.yaml",
            )
        ) as client,
    ):
        assert client.wait_connected(60), client.down
        assert client.protocols == dict.fromkeys(("b0", "b1", "b2"), "frames")
        for _ in range(50):
            if not client.ask(images[0]).missing:
                break
        answers = [client.ask(image) for image in images]
        protocols = client.protocols
        assert any("whose networks do not meet" in line for line in fleet.limitations)
    for image, answer in zip(images, answers, strict=True):
        assert not answer.missing
        assert answer.logits == pytest.approx(logits(bundle, manifest, image), rel=1e-5, abs=1e-5)
    workload = plan_workload(plan)
    planned_ms = fan_out_breakdown(workload).total_ms - join_ms(workload.host)
    assert min(answer.total_ms for answer in answers) >= 0.98 * planned_ms
    found = compare_with_plan(plan, manifest, answers, None, protocols)
    assert [row.board for row in found.boards] == ["b0", "b1", "b2"]
    assert [row.computed_ms.predicted for row in found.boards] == [20.0, 20.0, 40.0]
    assert min(row.computed_ms.measured for row in found.boards) >= 20.0
    assert found.boards[0].replied_ms.predicted is None
    assert found.boards[1].replied_ms.predicted < found.boards[1].replied_ms.measured
    assert found.compute_ms.predicted == 40.0


def test_tasks_name_the_board_of_g0_first_and_its_receivers_in_the_plan_s_order(plan, bundle):
    places = [BoardAddress(name=f"b{n}", address=f"127.0.0.1:{n + 1}") for n in range(3)]
    manifest = Manifest.read(bundle / MANIFEST)
    first, *heads = board_tasks(plan, manifest, BoardAddresses(boards=places), "boards.yaml")
    assert (first.name, first.students) == ("b0", ())
    assert [each.name for each in first.receivers] == ["b1", "b2"]
    assert [(each.name, each.sender, each.students) for each in heads] == [
        ("b1", "b0", ("student-0",)),
        ("b2", "b0", ("student-1", "student-2")),
    ]
    assert len({first.session, *(each.session for each in heads)}) == 1
    places[2] = BoardAddress(name="b2", address="127.0.0.1:3", protocol="standard")
    with pytest.raises(InputError, match="carries no maps from board to board"):
        board_tasks(plan, manifest, BoardAddresses(boards=places), "boards.yaml")
