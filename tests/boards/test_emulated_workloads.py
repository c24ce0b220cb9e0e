"""Work of emulated boards: from the plan and the bundle, by the simulator's times."""

from dataclasses import replace

import pytest
from emulated_plans import bundle_of, made_fleet, made_plan

from boards.emulation.iproute import link_lines, packet_bytes, rate_line
from boards.emulation.link_emulation import (
    board_workloads,
    emulation_methods,
    limitations,
    link_emulations,
)
from boards.emulation.namespace import LOOPBACK_ONLY, Capabilities
from boards.emulation.worker_process import worker_command
from nonn_common.errors import InputError
from nonn_core.export.bundle import MANIFEST, Manifest
from profiles.fleet import resolve

LINK = "wired-100mbit"


def manifest_of(plan, folder):
    return Manifest.read(bundle_of(plan, folder) / MANIFEST)


def test_students_that_share_a_board_are_done_together_and_a_replica_runs_on_all_its_boards(
    tmp_path,
):
    fleet = made_fleet([LINK] * 3, compute_ms=10.0, message_ms=26.0, sharing_slowdown=1.5)
    plan = made_plan(fleet, [("b0",), ("b0",), ("b2", "b0")])
    first, second = board_workloads(plan, manifest_of(plan, tmp_path))
    assert first.board.name == "b0"
    assert first.holds_ms == dict.fromkeys(("student-0", "student-1", "student-2"), 45.0)
    assert (second.board.name, second.holds_ms) == ("b2", {"student-2": 10.0})
    assert (second.message_ms, second.image_bytes) == (26.0, 12_288)
    assert second.precision == "fp32"


def test_students_that_share_a_g0_take_the_time_of_one_model(tmp_path):
    fleet = made_fleet([LINK] * 2, compute_ms=10.0, sharing_slowdown=1.5)
    boards = [("b0",), ("b0",), ("b1",)]
    for copies, together_ms in (("per-board", 10.0), ("per-student", 30.0)):
        plan = made_plan(fleet, boards, image="1x8x8", group0_copies=copies)
        first, second = board_workloads(plan, manifest_of(plan, tmp_path / copies))
        assert first.holds_ms == dict.fromkeys(("student-0", "student-1"), together_ms)
        assert second.holds_ms == {"student-2": 10.0}


def test_a_worker_is_told_its_students_their_times_and_its_keys(tmp_path):
    plan = made_plan(made_fleet([LINK], compute_ms=12.5))
    (duty,) = board_workloads(plan, manifest_of(plan, tmp_path / "bundle"))
    command = worker_command(["run"], tmp_path / "bundle", tmp_path / "keys", duty)
    assert command == [
        "run",
        str(tmp_path / "bundle"),
        "--student",
        "student-0",
        "--keys",
        str(tmp_path / "keys"),
        "--at-least",
        "student-0=12.500ms",
        "--precision",
        "fp32",
    ]


def test_a_precision_that_the_bundle_lacks_is_left_to_the_worker(tmp_path):
    plan = made_plan(made_fleet([LINK]))
    int8 = plan.model_copy(
        update={"students": (plan.students[0].model_copy(update={"precision": "int8"}),)}
    )
    (duty,) = board_workloads(int8, manifest_of(plan, tmp_path))
    assert duty.precision is None


def test_the_bundle_of_another_plan_is_refused(tmp_path):
    small, large = (made_plan(made_fleet([LINK] * count)) for count in (1, 2))
    with pytest.raises(InputError, match="no student-1: it is of another plan"):
        board_workloads(large, manifest_of(small, tmp_path))


def test_maps_of_g0_take_the_sender_s_link_and_that_of_the_board(tmp_path):
    """Exchanges as the simulator has them: the slower rate, and both latencies."""
    quick = {"name": "quick", "bits_per_s": 1e8, "latency_ms": 1.0}
    slow = {"name": "slow", "bits_per_s": 1e6, "latency_ms": 20.0}
    fleet = made_fleet([slow, quick, quick], compute_ms=10.0, message_ms=3.0)
    plan = made_plan(fleet, [("b1",), ("b2",)], alone="b0", image="1x8x8")
    work = board_workloads(plan, manifest_of(plan, tmp_path))
    assert [each.holds_ms for each in work] == [
        {"group0": 10.0},
        {"student-0": 10.0},
        {"student-1": 10.0},
    ]
    maps_bytes = 4 * 4 * 8 * 8
    assert [each.image_bytes for each in work] == [4 * 8 * 8, maps_bytes, maps_bytes]
    links = link_emulations(work, LOOPBACK_ONLY, own_message_ms=1.0)
    image, maps = links["b0"].down, links["b1"].down
    assert (image.carriers, image.latency_ms, image.message_ms) == (("card",), 20.0, 2.0)
    assert (maps.carriers, maps.latency_ms, maps.message_ms) == (("up b0",), 21.0, 2.0)
    assert maps.wire_ms_per_byte == pytest.approx(8e-3)
    assert (links["b1"].up.carriers, links["b1"].up.latency_ms) == (("up b1",), 1.0)


@pytest.mark.parametrize(
    ("bits_per_s", "packet"), [(1e9, 1500), (1e8, 1500), (4e6, 500), (1e5, 296)]
)
def test_packets_of_slow_links_are_small_and_a_rate_is_that_of_content(bits_per_s, packet):
    assert packet_bytes(bits_per_s) == packet
    words = rate_line("eth0", bits_per_s).split()
    raw = float(words[words.index("rate") + 1].removesuffix("bit"))
    assert raw == pytest.approx(bits_per_s * (packet + 14) / (packet - 52), abs=1)
    # tbf drops, for ever, a frame that is larger than its burst.
    assert int(words[words.index("burst") + 1]) > packet + 14


def link_of(**figures):
    (_, (board,)) = resolve(made_fleet([{"name": "l", **figures}]))
    return board.link


def test_netem_comes_before_tbf_and_only_where_there_is_something_to_delay():
    slow = link_of(latency_ms=10.0, loss_pct=1.5)
    netem, tbf = link_lines("eth0", slow, rate=True, delays=True)
    assert netem.startswith("qdisc add dev eth0 root handle 1: netem")
    assert "delay 10.0ms loss 1.5%" in netem
    assert tbf.startswith("qdisc add dev eth0 parent 1:1 tbf")
    assert link_lines("eth0", slow, rate=False, delays=True) == (netem,)
    for lines in (
        link_lines("eth0", slow, rate=True, delays=False),
        link_lines("eth0", link_of(), rate=True, delays=True),
    ):
        (line,) = lines
        assert line.startswith("qdisc add dev eth0 root tbf")
    assert link_lines("eth0", slow, rate=False, delays=False) == ()


def test_notes_name_what_differs_from_the_profiles(tmp_path):
    lossy = {"name": "lossy", "loss_pct": 1.0, "retransmit_ms": 200.0}
    plan = made_plan(made_fleet([lossy, LINK], message_ms=0.5))
    host, _ = resolve(plan.question.fleet)
    work = [
        replace(duty, precision=None) for duty in board_workloads(plan, manifest_of(plan, tmp_path))
    ]
    can = Capabilities(namespaces=True, rates=True, shared_channels=True, delays=True)
    text = "\n".join(limitations(work, host, can, {}, own_message_ms=1.0))
    assert "lossy: packets are lost, and TCP repeats them when it does" in text
    assert "b0, b1: messages cost what they cost here, which is taken to be 1 ms" in text
    assert "b1: its students have no one precision" in text
    assert "3.16 ms in which x86-host joins" in text
    assert "the relay itself" not in text
    assert "no network" not in text
    assert "the system has no tbf" in limitations(
        work, host, Capabilities(namespaces=True), {}, own_message_ms=1.0
    )
    assert [line.split(":")[0] for line in emulation_methods(can, {})] == [
        "boards",
        "networks",
        "rates",
        "media and the host's card",
        "latency and loss",
    ]
