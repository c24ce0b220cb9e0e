import copy
import json

import pytest

from nonn_common.errors import InputError
from nonn_core.partition import Partition

STEP = {"accuracy_pct": 90.0, "delta_val_pct": -1.0}


@pytest.fixture
def content():
    """A partition of 6 filters into 3 communities, as plain data."""
    return {
        "teacher": {
            "path": "teacher.safetensors",
            "network": "wrn40-4",
            "fconv": "trunk",
            "data": "digits",
            "image": "1x16x16",
            "classes": 10,
            "params": 8_949_210,
            "macs": 325_000_000,
            "peak_elements": None,
        },
        "rule": "AH",
        "gamma": 1.0,
        "seed": 0,
        "filters": 6,
        "images": 100,
        "modularity": 0.4,
        "communities": [
            {"id": 0, "filters": [0, 2, 4], "linked": True},
            {"id": 1, "filters": [1, 5], "linked": True},
            {"id": 2, "filters": [3], "linked": False},
        ],
        "drop_steps": [
            {"communities": [], "filters": 0, "accuracy_pct": 91.0, "delta_val_pct": 0.0},
            {"communities": [2], "filters": 1, **STEP},
            {"communities": [2, 0], "filters": 4, **STEP},
        ],
    }


def test_a_partition_survives_its_file(content, tmp_path):
    partition = Partition.check(content, "this test")
    partition.write(tmp_path / "partition.json")
    assert Partition.read(tmp_path / "partition.json") == partition
    plain = json.loads((tmp_path / "partition.json").read_text())
    assert plain["communities"] == [{**one, "unneeded": False} for one in content["communities"]]
    assert plain["schema_version"] == 1


def point(removed, filters):
    return {"removed": removed, "filters": filters, "accuracy_pct": 90.0, "delta_val_pct": -1.0}


def test_a_file_without_a_curve_is_read(content):
    found = Partition.check(content, "this test")
    assert (found.curve, found.epsilon_pct, found.restarts) == ((), None, None)
    assert not any(one.unneeded for one in found.communities)


def test_p0_is_the_largest_step_below_epsilon(content):
    content["drop_steps"][1]["delta_val_pct"] = -2.0
    content["drop_steps"][2]["delta_val_pct"] = 0.5
    found = Partition.check(content, "this test")
    assert found.p0(0.5).communities == ()
    assert found.p0(0.6).communities == (2, 0)
    content["drop_steps"] = [
        {**step, "accuracy_pct": None, "delta_val_pct": None} for step in content["drop_steps"]
    ]
    assert Partition.check(content, "this test").p0(100.0) is None


@pytest.mark.parametrize(
    "curve",
    [
        [point([3], 1)],  # does not begin with nothing
        [point([], 0), point([], 0)],  # removes nothing more
        [point([], 0), point([3], 1), point([3], 2)],  # removes one twice
        [point([], 0), point([1, 1], 2)],
        [point([], 0), point([1, 3], 1)],  # counts wrongly
        [point([], 0), point([6], 1)],  # no such filter
        [point([], 0), point([-1], 1)],
    ],
)
def test_a_curve_that_is_not_nested_is_refused(content, curve):
    content["curve"] = [point([], 0), point([3], 1), point([0, 5], 3)]
    Partition.check(content, "this test")
    content["curve"] = curve
    with pytest.raises(InputError, match="curve"):
        Partition.check(content, "this test")


def edit(path, value):
    def change(content):
        *way, last = path
        place = content
        for key in way:
            place = place[key]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (edit(["communities", 1, "id"], 7), "ids must be 0, 1, 2"),
        (edit(["communities", 1, "filters"], [1, 4]), "exactly once"),
        (edit(["communities", 1, "filters"], [1, 1, 5]), "exactly once"),
        (edit(["communities", 1, "filters"], [1]), "exactly once"),
        (edit(["communities", 1, "filters"], [1, 6]), "exactly once"),
        (edit(["communities", 1, "filters"], []), "filters"),
        (edit(["communities", 1, "filters"], [1, -5]), "communities.1.filters.1"),
        (edit(["communities"], []), "communities"),
        (edit(["filters"], 7), "exactly once"),
        (edit(["gamma"], 0), "gamma"),
        (edit(["teacher"], "teacher.safetensors"), "teacher"),
        (edit(["teacher", "network"], "resnet"), "teacher.network"),
        (edit(["teacher", "image"], "8x8"), "teacher.image"),
        (edit(["teacher", "classes"], 1), "teacher.classes"),
        (edit(["rule"], "XY"), "rule"),
        (edit(["drop_steps"], []), "drop_steps"),
        (edit(["drop_steps", 0, "communities"], [2]), "first drop step"),
        (edit(["drop_steps", 0, "filters"], 1), "count"),
        (edit(["drop_steps", 1, "filters"], 2), "count"),
        (edit(["drop_steps", 2, "communities"], [0, 1]), "contain the one before"),
        (edit(["drop_steps", 2, "communities"], [2, 9]), "does not exist"),
        (edit(["drop_steps", 2, "communities"], [2, -1]), "does not exist"),
        (edit(["surprise"], 1), "surprise"),
        (edit(["schema_version"], 2), "schema_version"),
    ],
)
def test_what_is_no_partition_is_refused(content, change, why):
    changed = copy.deepcopy(content)
    change(changed)
    with pytest.raises(InputError, match=why):
        Partition.check(changed, "this test")


@pytest.mark.parametrize(
    "steps",
    [
        [[], [2], [2, 2, 0]],  # a community twice
        [[], [2], [2]],  # removes nothing more
        [[], [2], [2, 2]],  # removes nothing more, named twice
        [[], [2, 0]],  # removes two at once
    ],
)
def test_each_drop_step_removes_exactly_one_community_more(content, steps):
    # "each further one removes one community more", says the class.
    sizes = [3, 2, 1]
    content["drop_steps"] = [
        {"communities": step, "filters": sum(sizes[c] for c in set(step)), **STEP} for step in steps
    ]
    with pytest.raises(InputError, match="drop step"):
        Partition.check(content, "this test")


def test_the_graph_has_filters_communities_and_links(content):
    links = [[0, 2, 1.5], [2, 4, 2.0], [1, 5, 0.5]]
    graph = Partition.check({**content, "links": links}, "this test").graph()
    assert sorted(graph.nodes) == list(range(6))
    assert graph.nodes[5] == {"community": 1, "linked": True, "unneeded": False}
    assert graph.edges[4, 2]["weight"] == 2.0
    assert graph.number_of_edges() == 3


@pytest.mark.parametrize("link", [[2, 0, 1.0], [1, 1, 1.0], [0, 6, 1.0], [0, 1, 0.0]])
def test_links_join_two_filters_that_exist(content, link):
    with pytest.raises(InputError, match="link"):
        Partition.check({**content, "links": [link]}, "this test")
