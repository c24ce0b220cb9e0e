"""`draw`: pictures of files that commands write; each shows what its file says."""

import json

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from boards.board_validation import Validation
from nonn_common.document import PNG
from nonn_core.accuracy_report import Evaluation
from nonn_core.figure import partition_figure
from nonn_core.partition import Partition
from nonn_plan.figure import accuracies_by_boards, figure_of, validation_figure
from planner.plan_file.plan_document import PlanDocument, PlannedGroup0, PlannedStudent

SUBSETS = {"a": 40.0, "b": 60.0, "c": 20.0, "ab": 80.0, "ac": 55.0, "bc": 66.0, "abc": 90.0}


def measured_partition(document, **fields):
    """The four communities of A, 4.2, in which the first may go, and links between filters."""
    step = {"communities": [0], "filters": 12, "accuracy_pct": 89.5, "delta_val_pct": -0.5}
    whole = {"filters": 0, "accuracy_pct": 90.0, "delta_val_pct": 0.0, "loss_bound_pct": 0.0}
    return document | {
        "epsilon_pct": 1.0, "confidence_pct": 95.0, "images": 500,
        "drop_steps": [{"communities": [], **whole}, {**step, "loss_bound_pct": 0.9}],
        "curve": [
            {"removed": [], **whole},
            {"removed": [0], "filters": 1, "accuracy_pct": 90.4, "delta_val_pct": 0.4,
             "loss_bound_pct": 0.6},
            {"removed": [1], "filters": 2, "accuracy_pct": 75.0, "delta_val_pct": -15.0,
             "loss_bound_pct": 17.0},
        ],
        "links": [[0, 1, 4.0], [0, 80, 1.0], [12, 13, 9.0]],
    } | fields  # fmt: skip


def evaluation(subsets=SUBSETS):
    named = [
        {"students": [f"student-{'abc'.index(one) + 1}" for one in names], "accuracy_pct": pct}
        for names, pct in subsets.items()
    ]
    return {"data": "digits", "images": 450, "accuracy_pct": 90.0, "subsets": named}


def comparison(predicted, measured):
    return {"predicted": predicted, "measured": measured, "error_pct": None}


def validation(**fields):
    board = {
        "board": "pi$1$", "device": "rpi-3b", "wire": "frames", "energy_mj": comparison(1, 2),
        "computed_ms": comparison(12.25, 13.5), "replied_ms": comparison(None, 20.0),
    }  # fmt: skip
    accuracy = {"predicted_pct": 91.0, "low_pct": 88.0, "high_pct": 93.0}
    return {
        "images": 200, "incomplete": 3, "total_ms": comparison(24.0, 30.0),
        "compute_ms": comparison(12.25, 14.0), "communication_ms": comparison(11.75, 16.0),
        "p95_ms": comparison(24.0, 39.0), "boards": [board], "advice": ["none"],
        "accuracy": accuracy | {"exported_pct": 90.5, "measured_pct": 90.25},
    } | fields  # fmt: skip


def epochs(*losses):
    return [
        {"epoch": n, "learning_rate": 0.1, "losses": each, "validation_accuracy_pct": 9.0 * n}
        for n, each in enumerate(losses, start=1)
    ]


@pytest.fixture
def written(tmp_path):
    """Write a document, or lines of documents, and give its place."""

    def call(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        lines = content if isinstance(content, list) else [content]
        path.write_text("".join(json.dumps(each) + "\n" for each in lines))
        return path

    return call


def lines_of(axes):
    """Each labelled line of a picture, as pairs of numbers."""
    return {
        line.get_label(): list(zip(*np.asarray(line.get_data()).tolist(), strict=True))
        for line in axes.lines
    }


class TestPictures:
    """Pictures equal to what their files say, and other files, which are refused."""

    def test_delta_val_is_drawn_as_measured_with_its_bound_below(self, partition_document):
        found = Partition.check(measured_partition(partition_document), "here")
        lines = lines_of(partition_figure(found).axes[1])
        assert lines["measured"] == [(0, 0.0), (1, 0.4), (2, -15.0)]
        # A loss of at most 17 points is a delta_val of at least -17.
        assert lines["not below, with 95 % confidence"] == [(0, 0.0), (1, -0.6), (2, -17.0)]
        assert {y for _, y in lines["epsilon: 1 either way"]} == {1.0}
        assert {x for x, _ in lines["dropped, P0: 12 filters"]} == {12}

    def test_each_filter_and_link_is_drawn_once_and_rings_do_not_touch(self, partition_document):
        document = measured_partition(partition_document)
        network = partition_figure(Partition.check(document, "here")).axes[0]
        rings = [one.get_offsets() for one in network.collections if len(one.get_offsets()) > 1]
        assert [len(ring) for ring in rings] == [12, 14, 25, 30]
        lines = [one for one in network.collections if isinstance(one, LineCollection)]
        assert [len(one.get_segments()) for one in lines] == [1, 2]  # between, then inside
        (between,) = lines[0].get_segments()
        assert np.allclose(between, [rings[0][0], rings[3][-1]])
        weights = sorted((one.get_linewidths() for one in lines), key=len)
        assert weights[0][0] < weights[1][0] < weights[1][1]
        centres = [np.mean(ring, axis=0) for ring in rings]
        for one, other in ((0, 1), (1, 2), (2, 3), (0, 3), (0, 2), (1, 3)):
            apart = np.hypot(*(centres[one] - centres[other]))
            assert apart > (len(rings[one]) + len(rings[other])) / (2 * np.pi) + 5.9
        assert [text.get_text() for text in network.texts] == ["3: 30", "2: 25", "1: 14", "0: 12"]
        assert "hollow: dropped, P0" in network.get_title()

    def test_missing_students_are_drawn_as_least_mean_and_most(self, written):
        found = figure_of(written("evaluation.json", evaluation())).figure.axes[0]
        assert lines_of(found) == {
            "most": [(1, 60.0), (2, 80.0), (3, 90.0)],
            "mean": [(1, 40.0), (2, 67.0), (3, 90.0)],
            "least": [(1, 20.0), (2, 55.0), (3, 90.0)],
        }
        assert found.get_xlabel() == "students that answer; below: most, mean, least"
        numbers = [tick.get_text().split("\n") for tick in found.get_xticklabels()]
        assert numbers[0] == ["1", "60.0", "40.0", "20.0"]
        begins = f"the axis begins at {found.get_ylim()[0]:.0f}"
        assert begins in found.get_ylabel()

    @pytest.mark.parametrize(
        ("group0", "expected", "unanswered"),
        [(None, {1: [55.0, 66.0], 2: [90.0]}, 0), ("third", {2: [55.0, 66.0], 3: [90.0]}, 4)],
    )
    def test_missing_boards_take_all_their_students_with_them(self, group0, expected, unanswered):
        """By hand: a on the first board, b on the second, c on both; all wait for that of G0."""
        homes = {1: ("first",), 2: ("second",), 3: ("first", "second")}
        students = tuple(
            PlannedStudent.model_construct(name=f"student-{n}", board=on[0], replicas=on[1:])
            for n, on in homes.items()
        )
        alone = group0 and PlannedGroup0.model_construct(board=group0)
        plan = PlanDocument.model_construct(students=students, group0=alone)
        found = Evaluation.check(evaluation(), "here")
        assert accuracies_by_boards(found, plan, "here") == (expected, unanswered)

    def test_epochs_are_drawn_as_the_run_had_them(self, written):
        rows = epochs({"loss": 20.0, "kd": 2.0}, {"loss": 10.0, "kd": 1.5})
        losses, accuracy = figure_of(written("run/metrics.jsonl", rows).parent).figure.axes
        assert lines_of(losses) == {"loss": [(1, 20.0), (2, 10.0)], "kd": [(1, 2.0), (2, 1.5)]}
        assert "logarithmic" in losses.get_ylabel()
        assert [*lines_of(accuracy).values()] == [[(1, 9.0), (2, 18.0)]]
        assert accuracy.get_ylim()[0] == 0

    def test_a_loss_of_nothing_is_drawn_from_zero(self, written):
        file = written("metrics.jsonl", epochs({"loss": 2.0}, {"loss": 0.0}))
        losses = figure_of(file).figure.axes[0]
        assert losses.get_yscale() == "linear"
        assert losses.get_ylim()[0] == 0

    def test_predicted_times_stand_beside_measured_ones_from_zero(self):
        times, accuracy = validation_figure(Validation.check(validation(), "here")).axes
        predicted, measured = ([bar.get_width() for bar in bars] for bars in times.containers)
        assert predicted == [24.0, 12.25, 11.75, 24.0, 12.25, 0.0]
        assert measured == [30.0, 14.0, 16.0, 39.0, 13.5, 20.0]
        assert [one.get_text() for one in times.texts].count("not known") == 1
        assert times.get_xlim()[0] == accuracy.get_xlim()[0] == 0
        assert [bar.get_width() for bar in accuracy.containers[0]] == [91.0, 90.5, 90.25]
        assert "3 more lacked a student" in times.get_title()

    @pytest.mark.parametrize("kind", ["partition", "validation"])
    def test_a_picture_is_written_under_the_name_of_its_file(
        self, nonn_plan, written, partition_document, tmp_path, monkeypatch, kind
    ):
        monkeypatch.chdir(tmp_path)
        file = {
            "partition": lambda: written("partition.json", measured_partition(partition_document)),
            "validation": lambda: written("validation.json", validation()),
        }[kind]()
        said = nonn_plan("draw", file, "--json")
        assert said.code == 0, said.err
        assert (tmp_path / f"{kind}.png").read_bytes().startswith(PNG)
        assert said.document["picture"] == f"{kind}.png"
        assert "warnings" not in said.document

    def test_what_the_file_cannot_tell_is_said(self, nonn_plan, partition_file, tmp_path):
        said = nonn_plan("draw", partition_file, "-o", tmp_path / "p.png", "--json")
        assert said.code == 0, said.err
        links, drops = said.document["warnings"]
        assert "holds no links" in links
        assert "no drop of filters was measured" in drops

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("other.json", {"a": 1}, ["a file without a picture", "allowed: partition.json"]),
            ("t.safetensors", {}, ["t.safetensors: is a file without a picture"]),
            ("plan.json", {"question": 1, "students": 2}, ["nonn-plan simulate", "--gantt"]),
            ("evaluation.json", evaluation({}), ["without students", "allowed", "NoNN"]),
            ("partition.json", {"communities": 1, "drop_steps": 2}, ["(Partition)", "field"]),
            ("metrics.jsonl", [{"epoch": 1}], ["line 1 (EpochRow)", "is required and missing"]),
            ("metrics.jsonl", [], ["no finished epoch", "train on"]),
            ("run/other.json", {}, ["is a folder without metrics.jsonl", "allowed"]),
            ("seeds/seed-1/metrics.jsonl", None, ["name the run", "seed-1"]),
        ],
    )
    def test_other_files_are_refused_with_what_is_allowed(
        self, nonn_plan, written, tmp_path, name, content, words
    ):
        if content is None:
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).touch()
            file = tmp_path / "seeds"
        else:
            file = written(name, content)
        said = nonn_plan("draw", file.parent if "run" in name else file, "-o", tmp_path / "p.png")
        assert said.code == 2
        assert [word for word in words if word not in said.err] == []
        assert str(tmp_path) in said.err
        assert not (tmp_path / "p.png").exists()

    @pytest.mark.parametrize(
        ("name", "words"),
        [("p.txt", ["p.txt", "allowed: .png"]), ("mine.png", ["mine.png", "is not replaced"])],
    )
    def test_a_wrong_place_is_refused_and_nothing_is_replaced(
        self, nonn_plan, written, tmp_path, name, words
    ):
        (tmp_path / "mine.png").write_text("my notes")
        said = nonn_plan("draw", written("e.json", evaluation()), "-o", tmp_path / name)
        assert said.code == 2
        assert [word for word in words if word not in said.err] == []
        assert (tmp_path / "mine.png").read_text() == "my notes"

    def test_a_plan_goes_with_an_evaluation_of_its_students(
        self, nonn_plan, written, plan_file, partition_file, tmp_path
    ):
        said = nonn_plan("draw", partition_file, "--plan", plan_file, "-o", tmp_path / "p.png")
        assert said.code == 2
        assert "--plan: goes with an evaluation alone" in said.err
        other = written("evaluation.json", evaluation())
        said = nonn_plan("draw", other, "--plan", plan_file, "-o", tmp_path / "p.png")
        assert said.code == 2
        assert "found 'student-1, student-2, student-3'; allowed: student-1, student-2" in said.err
