"""`nonn-plan replan`: trained students on the boards that are left."""

import json


def replanned(nonn_plan, plan_file, *arguments):
    target = plan_file.with_name("replanned.json")
    return nonn_plan("replan", plan_file, *arguments, "-o", target), target


def test_a_board_goes_and_another_comes(nonn_plan, plan_file):
    said, target = replanned(nonn_plan, plan_file, "--without", "rpi-3b-1")
    assert said.code == 0
    assert "Where students ran, and run" in said.out
    assert "no placement within the budgets keeps more than 1 of 2 students" in said.out
    assert nonn_plan("verify", target).code == 0
    assert nonn_plan("simulate", target).code == 0
    back = nonn_plan("replan", target, "--with", "rpi-3b", "-o", target, "--json").document
    assert back["came"] == ["rpi-3b-1"]
    assert [one["after"] for one in back["models"]].count([]) == 0
    assert back["proven"]
    assert any("has the budget of rpi-3b-2" in one for one in back["notes"])
    assert back["plan"] == json.loads(target.read_text())


def test_boards_that_the_host_lost_are_gone(nonn_plan, plan_file, tmp_path):
    times = dict.fromkeys(("sent_ms", "waited_ms", "computed_ms", "replied_ms"))
    boards = [
        {"board": "rpi-3b-1", "wire": "frames", "answered": 9, **times},
        {"board": "rpi-3b-2", "wire": "", "answered": 4, **times},
    ]
    report = {"images": 9, "unanswered": 0, "incomplete": 5, "accuracy_pct": None}
    report |= {"total_ms": None, "throughput_per_s": 1.0, "missing": {}, "reasons": {}}
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**report, "boards": boards}))
    said, target = replanned(nonn_plan, plan_file, "--report", path)
    assert said.code == 0
    fleet = json.loads(target.read_text())["question"]["fleet"]
    assert [one["name"] for one in fleet["boards"]] == ["rpi-3b-1"]
    boards[1]["wire"] = "standard"
    path.write_text(json.dumps({**report, "boards": boards}))
    said, _ = replanned(nonn_plan, plan_file, "--report", path)
    assert said.code == 2
    assert "no board goes, and none comes" in said.err


def test_what_cannot_be_replanned_leaves_no_file(nonn_plan, plan_file):
    for arguments, code, words in (
        ((), 2, "no board goes, and none comes"),
        (("--without", "rpi-9"), 2, "allowed: rpi-3b-1, rpi-3b-2"),
        (("--without", "rpi-3b-1", "--without", "rpi-3b-2"), 2, "no board is left"),
        (("--with", "rpi-9"), 2, "rpi-9"),
    ):
        said, target = replanned(nonn_plan, plan_file, *arguments)
        assert said.code == code
        assert words in said.err
        assert not target.exists()
