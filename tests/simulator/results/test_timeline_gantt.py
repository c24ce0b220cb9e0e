"""The Gantt picture, read from the figure's own parts."""

import struct

import pytest

from nonn_common.errors import SimulationError
from simulator.engine.simulation import simulate
from simulator.results.timeline import COLOURS, EDGES, IMAGES, gantt, write_gantt
from simulator.scenario import Periodic, Scenario, TimedFailure

FAILING = Scenario(arrivals=Periodic(60), failures=(TimedFailure(("slow",), 20, 100),))


def spans(figure):
    """Left and right end of every box, by lane and face colour."""
    from matplotlib.colors import to_hex

    (axes,) = figure.axes
    found = set()
    for group in axes.collections:
        colour = to_hex(group.get_facecolor()[0])
        for path in group.get_paths():
            (left, bottom), (right, _) = path.get_extents().get_points()
            found.add((round(bottom + 0.36), colour, round(left, 6), round(right, 6)))
    return found


def test_a_box_per_step_and_resource_in_the_colour_of_its_activity(make_fan_out):
    result = simulate(make_fan_out(), 2)
    figure = gantt(result)
    (axes,) = figure.axes
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert titles[:3] == ["network card", "processor", "link in"]
    slow_cpu = titles.index("processor", 2)
    steps = result.recording.graph.steps
    boxes = spans(figure)
    assert len(boxes) == sum(len(steps[row.step].resources) for row in result.intervals)
    for row in result.intervals:
        if row.resource == "slow.cpu":
            end = round(row.end_ms, 6)
            assert (slow_cpu, COLOURS["compute"], round(row.start_ms, 6), end) in boxes


def test_owners_and_images_are_named(make_fan_out):
    figure = gantt(simulate(make_fan_out(), 2))
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    for name in ("host", "slow", "fast"):
        assert texts.count(name) == 1
    assert any(text.startswith("image 1: ") for text in texts)
    assert any(text.startswith("image 2: ") for text in texts)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["send", "compute", "reply", "join"]


def test_only_the_first_images_are_drawn(make_fan_out):
    result = simulate(make_fan_out(), 10)
    (axes,) = gantt(result).axes
    assert sum(text.get_text().startswith("image ") for text in axes.texts) == IMAGES
    assert "first 3 of 10" in axes.get_title(loc="left")
    last_ms = max(row.end_ms for row in result.inferences[:IMAGES])
    assert axes.get_xlim()[1] < 1.05 * last_ms


def test_a_try_that_failed_is_hatched(make_fan_out):
    result = simulate(make_fan_out(), 3, FAILING)
    (axes,) = gantt(result).axes
    hatched = [group for group in axes.collections if group.get_hatch()]
    lost = [row for row in result.intervals if row.lost]
    assert sum(len(group.get_paths()) for group in hatched) >= len(lost) > 0


def test_every_activity_has_a_colour_of_its_own():
    assert COLOURS.keys() == EDGES.keys()
    assert len({*COLOURS.values(), *EDGES.values()}) == 2 * len(COLOURS)


def test_the_file_is_a_picture(make_fan_out, tmp_path):
    write_gantt(simulate(make_fan_out()), tmp_path / "picture.png")
    content = (tmp_path / "picture.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width == 1800
    assert height > 300


def test_totals_alone_make_no_picture(make_fan_out):
    with pytest.raises(SimulationError, match="only totals"):
        gantt(simulate(make_fan_out(), 2, keep="totals"))
