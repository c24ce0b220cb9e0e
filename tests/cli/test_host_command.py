"""`host` and `validate` as a person runs them, on a fleet of real workers on loopback."""

import csv
import json
import os
from collections import Counter

import numpy as np
import pytest
from emulated_plans import bundle_of, made_fleet, made_plan
from forked_python import run_forked, template
from PIL import Image as Picture

from boards.emulation.emulated_fleet import emulated
from boards.emulation.namespace import LOOPBACK_ONLY
from boards.tls.authority import make_keys
from boards.tls.credential import board_subject

HOST = (
    "nonn_plan.cli.app",
    "nonn_plan.cli.commands.host",
    "boards.board_validation",
    "boards.host.host_report",
    "boards.host.session",
)
"""What a host imports, but for the standard library."""
LINK = {"name": "wire", "bits_per_s": 1e9}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosting")
    plan = made_plan(made_fleet([LINK, LINK], compute_ms=2.0), image="3x8x8")
    plan.write(folder / "plan.json")
    bundle = bundle_of(plan, folder / "bundle")
    with emulated(plan, bundle, capabilities=LOOPBACK_ONLY) as running:
        running.addresses.write(folder / "boards.yaml")
        pictures(folder / "data")
        wrong_pictures(folder)
        yield folder, running


def pictures(folder):
    """Write a data set of ten classes, as `made_bundle` names them."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(10):
            place = folder / part / f"class {number}"
            place.mkdir(parents=True)
            for picture in range(2):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Picture.fromarray(pixels).save(place / f"{picture}.png")


def wrong_pictures(folder):
    """Write pictures that Pillow would cut to white, or fails on in its own ways."""
    for name in ("deep", "broken"):
        (folder / name).mkdir()
    Picture.fromarray(np.full((8, 8), 40_000, np.uint16)).save(folder / "deep" / "a.png")
    (folder / "broken" / "a.ppm").write_bytes(b"P6\n8 8\nnot a number\n")


def run(fleet, command, *options, stdin=None):
    folder, running = fleet
    line = ["-m", "nonn_plan", command, "plan.json", "bundle"]
    line += ["--boards", "boards.yaml", "--keys", running.keys / "host", *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = template(*HOST)
    return run_forked(made, *line, cwd=folder, stdin=stdin or b"", env=env, text=False)


def test_host_classifies_a_data_set(fleet):
    folder, _ = fleet
    data = f"imagefolder:{folder / 'data'}"
    found = run(fleet, "host", "--data", data, "-o", "h.csv", "--confusion", "c.csv", "--json")
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert (report["images"], report["unanswered"], report["incomplete"]) == (20, 0, 0)
    assert report["missing"] == {}
    with (folder / "h.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = sum(row["class"] == row["label"] for row in rows)
    assert report["accuracy_pct"] == pytest.approx(100 * right / 20)
    assert {board["answered"] for board in report["boards"]} == {20}
    for one in report["class_accuracy"]:
        named = Counter(row["class"] for row in rows if row["label"] == one["name"])
        assert (one["images"], one["right"]) == (2, named.pop(one["name"], 0))
        assert one["mistaken_for"] == named
    lost = sum(one["right"] == 0 for one in report["class_accuracy"])
    assert f"in {lost} of 10 classes none of the images is right" in report["warnings"][0]
    with (folder / "c.csv").open() as file:
        written = {row["class"]: int(row["right"]) for row in csv.DictReader(file)}
    assert written == {one["name"]: one["right"] for one in report["class_accuracy"]}


def test_host_reads_a_folder_and_stdin_and_says_the_same(fleet):
    folder, _ = fleet
    place = folder / "data" / "test" / "class 3"
    raw = b"".join(
        np.asarray(Picture.open(place / f"{k}.png")).transpose(2, 0, 1).tobytes() for k in range(2)
    )
    one = run(fleet, "host", "--images", str(place), "-o", "one.csv")
    other = run(fleet, "host", "--images", "-", "-o", "other.csv", stdin=raw)
    assert (one.returncode, other.returncode) == (0, 0), one.stderr + other.stderr
    named = []
    for name in ("one.csv", "other.csv"):
        with (folder / name).open() as file:
            named.append([row["class"] for row in csv.DictReader(file)])
    assert named[0] == named[1]
    assert len(named[0]) == 2
    assert b"not known" in one.stdout


def test_images_that_no_board_answers_in_time_are_said(fleet):
    """A board holds each answer for 2 ms; only a host that was held up as long can have one."""
    folder, _ = fleet
    late = ("--data", f"imagefolder:{folder / 'data'}", "--limit", "4", "--deadline", "1us")
    found = run(fleet, "host", *late, "--json")
    report = json.loads(found.stdout)
    nobody = report["unanswered"]
    assert (report["images"], found.returncode) == (4, int(nobody == 4))
    assert nobody > 0
    assert (report["total_ms"] is None) == (nobody == 4)
    said = f"{nobody} of 4 images were answered by no student within 1us; they are in none of the"
    assert sum(said in text for text in report["warnings"]) == 1
    assert f"Warning: {said}" in found.stderr.decode()


def test_host_says_what_it_does_to_a_folder_of_pictures(fleet):
    folder, _ = fleet
    place = folder / "mixed"
    place.mkdir()
    Picture.new("LA", (8, 8), (0, 128)).save(place / "a.png")
    (place / "b.HEIC").write_bytes(b"x")
    found = run(fleet, "host", "--images", "mixed", "--json")
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert report["images"] == 1
    assert report["warnings"] == [
        "mixed: 1 file is left out, of kinds that are not read here: .heic 1 (b.HEIC)",
        "mixed: 1 of 1 pictures are transparent; the paper behind them is taken as #ffffff "
        "(another colour: train-teacher --paper)",
    ]


@pytest.mark.parametrize(
    ("options", "stdin", "text"),
    [
        (["--images", "-"], b"1234", "image 0 is cut short"),
        (["--images", "nowhere"], None, "no such folder of pictures"),
        (["--images", "bundle"], None, "holds no pictures"),
        (["--data", "digits"], None, "images of another shape"),
        (["--data", "digits", "--images", "-"], None, "either --data or --images"),
        (["--images", "deep"], None, "more than 8 bits per channel"),
        (["--images", "broken"], None, "not a readable image"),
        (["--insecure"], None, "either keys or --insecure"),
        (["--deadline", "soon"], None, "--deadline"),
    ],
)
def test_what_is_wrong_is_one_sentence(fleet, options, stdin, text):
    found = run(fleet, "host", *options, stdin=stdin)
    assert found.returncode == 2, found.stderr
    assert text in found.stderr.decode()
    assert b"Traceback" not in found.stderr


def test_validate_compares_and_writes(fleet):
    folder, _ = fleet
    data = f"imagefolder:{folder / 'data'}"
    found = run(fleet, "validate", "--data", data, "--limit", "10", "--trace", "t.json", "--json")
    assert found.returncode == 0, found.stderr
    written = json.loads((folder / "validation.json").read_text())
    assert json.loads(found.stdout) == written
    assert written["images"] == 10
    # A held answer is never early.
    assert all(board["computed_ms"]["measured"] >= 2.0 for board in written["boards"])
    assert {board["computed_ms"]["predicted"] for board in written["boards"]} == {2.0}
    assert json.loads((folder / "t.json").read_text())["traceEvents"]
    shown = run(fleet, "validate", "--data", data, "--limit", "5")
    said = shown.stdout.decode()
    assert "95th percentile" in said
    assert "total = compute + communication" in said
    assert "error: predicted less measured, in per cent of measured; + where" in said
    assert written["advice"]


def test_a_wrong_authority_is_said_once_for_all_boards(fleet):
    folder, _ = fleet
    make_keys(folder / "other", [board_subject("b0")])
    line = ["-m", "nonn_plan", "host", "plan.json", "bundle", "--boards", "boards.yaml"]
    line += ["--keys", "other/host", "--images", "-"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = run_forked(template(*HOST), *line, cwd=folder, stdin=bytes(192), env=env, text=False)
    assert said.returncode == 1
    told = "no board could be reached: b0, b1: the board's certificate is of another authority than"
    assert told in said.stderr.decode()
    assert said.stderr.count(b"authority") == 2  # of which the other is its file's name
    assert b"start their workers" not in said.stderr


def test_a_board_that_is_gone_is_named_and_the_rest_goes_on(fleet):
    folder, running = fleet
    running.worker("b1").kill()
    try:
        data = f"imagefolder:{folder / 'data'}"
        found = run(fleet, "host", "--data", data, "--limit", "4", "--json")
        assert found.returncode == 0, found.stderr
        report = json.loads(found.stdout)
        assert report["missing"] == {"student-1": 4}
        assert report["incomplete"] == 4
        assert "b1" in report["reasons"]["student-1"]
        (warning,) = [text for text in report["warnings"] if " classes " not in text]
        assert warning.startswith("without b1: ")
        refused = run(fleet, "validate", "--data", data, "--limit", "2", "-o", "other.json")
        assert refused.returncode == 1
        assert b"no image was answered by all students" in refused.stderr
        assert not (folder / "other.json").exists()
    finally:
        running.worker("b1").restart()
