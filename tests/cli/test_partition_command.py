"""`nonn-plan partition` on a saved network and on a small real teacher."""

import json

import networkx
import numpy as np
import pytest

from nonn_core.communities.filter_network import LinkOptions, filter_network
from nonn_core.partition import Partition


@pytest.fixture(scope="module")
def network_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    prefer = rng.gamma(0.3, 1.0, (6, 40))
    images = prefer[rng.integers(0, 6, 100)] * rng.gamma(1.0, 1.0, (100, 40))
    weights = filter_network(images, "AH", LinkOptions(link_percentile=80))
    path = tmp_path_factory.mktemp("network") / "net.npz"
    np.savez(path, filter_network=weights)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("partitions")


@pytest.fixture
def teacher(nonn_plan, pictures, folder):
    path = folder / "teacher.safetensors"
    said = nonn_plan(
        "train-teacher", "--network", "wrn10:8,12,16", "--data", f"imagefolder:{pictures}",
        "--epochs", 4, "--batch-size", 16, "-o", path, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    return path


def test_a_range_of_gammas_gives_a_table_and_a_file_each(nonn_plan, network_file, tmp_path):
    out = tmp_path / "found.json"
    call = ("partition", network_file, "--link-percentile", 0, "--seed", 3, "-o", out)
    said = nonn_plan(*call, "--gamma", "0.5:2:0.75", "--json")
    assert said.code == 0, said.err
    assert [row["gamma"] for row in said.document] == [0.5, 1.25, 2.0]
    names = ["found-gamma0.5.json", "found-gamma1.25.json", "found-gamma2.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert [row["file"] for row in said.document] == [str(tmp_path / name) for name in names]
    for row in said.document:
        made = json.loads((tmp_path / row["file"]).read_text())
        assert (made["gamma"], made["modularity"]) == (row["gamma"], row["modularity"])
        linked = [len(one["filters"]) for one in made["communities"] if one["linked"]]
        assert (row["communities"], row["largest"], row["smallest"]) == (
            len(linked),
            linked[0],
            linked[-1],
        )
        assert row["p0_filters"] is None
        assert row["g0_filters"] == 40 - sum(linked)
        # A single gamma finds the same.
        again = nonn_plan(*call, "--gamma", row["gamma"], "--json")
        assert again.document == made
    shown = nonn_plan(*call, "--gamma", "0.5:2:0.75")
    assert "modularity" in shown.out
    assert "found-gamma1.25.json" in "".join(shown.out.split())


def test_modularity_at_gamma_one_is_highest_there(nonn_plan, network_file, tmp_path):
    said = nonn_plan(
        "partition", network_file, "--gamma", "0.25:4:0.75", "-o", tmp_path / "p.json",
        "--link-percentile", 0, "--json",
    )  # fmt: skip
    rows = {row["gamma"]: row for row in said.document}
    assert rows[1.0]["modularity"] == rows[1.0]["plain_modularity"]
    assert max(row["plain_modularity"] for row in said.document) <= rows[1.0]["modularity"] + 1e-9
    assert rows[0.25]["communities"] > rows[4.0]["communities"]


@pytest.mark.parametrize(
    "gamma",
    ["0", "-1", "nan", "inf", "x", "", ":", "1:2", "2:1:0.5", "1:2:0", "1:2:-1", "0:1:0.5",
     "1:inf:1", "1:2:nan", "1:2:0.001", "1e-9"],
)  # fmt: skip
def test_other_gammas_are_refused_before_anything_is_read(nonn_plan, tmp_path, gamma, network_file):
    said = nonn_plan("partition", network_file, "-o", tmp_path / "p.json", f"--gamma={gamma}")
    assert said.code == 2
    assert "gamma" in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_files_of_close_gammas_have_names_of_their_own(nonn_plan, network_file, tmp_path):
    gamma = "1:1.0000002:0.0000001"
    call = ("partition", network_file, "--gamma", gamma, "-o", tmp_path / "p.json", "--json")
    assert nonn_plan(*call).code == 0
    assert len(list(tmp_path.glob("p-gamma*.json"))) == 3


def test_ranges_are_counted_in_decimals(nonn_plan, network_file, tmp_path):
    said = nonn_plan(
        "partition", network_file, "--gamma", "0.1:0.3:0.1", "-o", tmp_path / "p.json", "--json"
    )
    assert [row["gamma"] for row in said.document] == [0.1, 0.2, 0.3]


def test_p0_of_a_teacher_is_dropped_by_the_plan(nonn_plan, teacher, tmp_path):
    out, plan = tmp_path / "p.json", tmp_path / "plan.json"
    call = ("partition", teacher, "--link-percentile", 50, "-o", out)
    said = nonn_plan(*call, "--epsilon", 20, "--by-estimate", "--restarts", 2, "--json")
    assert said.code == 0, said.err
    made = said.document
    assert (made["epsilon_pct"], made["restarts"], made["filters"]) == (20, 2, 16)
    assert made["curve"][0]["removed"] == []
    assert made["curve"][-1]["filters"] == 15
    below = [p for p in made["curve"] if abs(p["delta_val_pct"]) < 20]
    assert below[-1]["filters"] > 1
    (found,) = [s for s in made["drop_steps"] if s["filters"] == below[-1]["filters"]]
    assert found["delta_val_pct"] == below[-1]["delta_val_pct"]
    p0 = [s for s in made["drop_steps"] if abs(s["delta_val_pct"]) < 20][-1]
    unneeded = [one for one in made["communities"] if one["unneeded"]]
    assert unneeded == made["communities"][-1:]
    said = nonn_plan("plan", out, "--fleet", "rpi3x2", "--epsilon", 20, "-o", plan, "--json")
    assert said.code == 0, said.err
    assert set(said.document["dropped"]) == set(p0["communities"])
    shown = nonn_plan(*call, "--epsilon", 20, "--by-estimate").out
    assert "single filters that are not missed" in shown
    assert "largest below 20 %" in shown


def test_nine_images_drop_nothing_and_the_command_says_how_many_it_takes(
    nonn_plan, teacher, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "120")
    out, plan = tmp_path / "p.json", tmp_path / "plan.json"
    call = ("partition", teacher, "--link-percentile", 50, "-o", out)
    said = nonn_plan(*call, "--json")
    assert said.code == 0, said.err
    made = said.document
    assert (made["images"], made["fewest_class_images"], made["confidence_pct"]) == (9, 3, 95)
    assert not any(one["unneeded"] for one in made["communities"])
    # Of 9 images none may be lost or won; Wilson's bound of 0 of n is below 1 % from 268 on.
    assert made["estimated_filters"] > 8
    assert made["images_needed"] == 268
    shown = nonn_plan(*call).out
    assert f"delta_val alone would drop {made['estimated_filters']} filters, not 0;" in shown
    assert "to be sure of that takes 268 validation images or more, and there are 9" in shown
    assert "loss at most (95 %)" in shown
    few = "the rarest class has 3 validation images, fewer than 10"
    assert f"Warning: {few}" in shown
    assert any(text.startswith(few) for text in made["warnings"])
    said = nonn_plan("plan", out, "--fleet", "rpi3x2", "-o", plan, "--json")
    assert (said.code, said.document["dropped"]) == (0, [])
    assert any(text.startswith(few) for text in said.document["warnings"])
    assert "warnings" not in json.loads(plan.read_text())


def test_what_is_dropped_by_the_estimate_alone_is_said_again_by_the_plan(
    nonn_plan, teacher, tmp_path
):
    out = tmp_path / "p.json"
    call = ("partition", teacher, "--link-percentile", 50, "--by-estimate", "-o", out)
    made = nonn_plan(*call, "--json").document
    assert made["confidence_pct"] is None
    dropped = [s for s in made["drop_steps"] if abs(s["delta_val_pct"]) < 1][-1]["filters"]
    assert dropped >= made["estimated_filters"] > 8
    unproven = f"{dropped} filters may go by the measured delta_val alone"
    assert any(text.startswith(unproven) for text in made["warnings"])
    for command in ("plan", "explore"):
        told = nonn_plan(command, out, "--fleet", "rpi3x2", "-o", tmp_path / command, "--json")
        assert told.code == 0, told.err
        assert any(text.startswith(unproven) for text in told.document["warnings"]), command
    said = nonn_plan("plan", out, "--fleet", "rpi3x2", "-o", tmp_path / "plan.json")
    assert "students of fewer than 8 filters know next to nothing: student-1 " in said.out
    # Without a drop there is nothing to prove.
    told = nonn_plan(
        "plan", out, "--fleet", "rpi3x2", "--epsilon", 0, "-o", tmp_path / "plan.json", "--json"
    )
    assert not any("measured delta_val alone" in text for text in told.document["warnings"])


def test_a_network_that_leaves_most_filters_alone_is_said(nonn_plan, network_file, tmp_path):
    said = nonn_plan("partition", network_file, "-o", tmp_path / "p.json", "--json")
    made = said.document
    linked = {filter_ for link in made["links"] for filter_ in link[:2]}
    assert len(linked) < 10
    assert made["warnings"] == [
        f"{40 - len(linked)} of 40 filters have no link, so that the communities are of "
        f"{len(linked)} filters alone; lower --link-percentile, as to 95"
    ]


def test_a_sweep_of_a_teacher_measures_p0(nonn_plan, teacher, tmp_path):
    said = nonn_plan(
        "partition", teacher, "--gamma", "0.5:1.5:1", "--link-percentile", 50,
        "-o", tmp_path / "p.yaml", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p-gamma0.5.yaml", "p-gamma1.5.yaml"]
    assert all(row["p0_filters"] is not None for row in said.document)


def test_epsilon_0_drops_nothing_and_leaves_communities_whole(nonn_plan, teacher, tmp_path):
    out = tmp_path / "p.json"
    said = nonn_plan(
        "partition", teacher, "--link-percentile", 50, "--epsilon", 0, "-o", out, "--json"
    )
    assert said.code == 0, said.err
    assert said.document["epsilon_pct"] == 0
    assert not any(one["unneeded"] for one in said.document["communities"])
    assert len(said.document["curve"]) > 2  # the curve is measured all the same
    plan = ("plan", out, "--fleet", "rpi3x2", "-o", tmp_path / "plan.json", "--json")
    said = nonn_plan(*plan)
    assert (said.code, said.document["dropped"]) == (0, [])
    assert said.document["question"]["epsilon_pct"] == 0


@pytest.mark.parametrize("epsilon", ["-1", "nan", "inf"])
def test_other_epsilons_are_refused(nonn_plan, teacher, tmp_path, epsilon):
    said = nonn_plan(
        "partition", teacher, "--link-percentile", 50, "-o", tmp_path / "p.json",
        f"--epsilon={epsilon}",
    )  # fmt: skip
    assert said.code == 2
    assert "epsilon" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option", [["--top-filters", 3], ["--no-per-image-scale"], ["--by-estimate"]]
)
def test_what_makes_links_goes_with_a_teacher_only(nonn_plan, network_file, tmp_path, option):
    said = nonn_plan("partition", network_file, *option, "-o", tmp_path / "p.json")
    assert said.code == 2
    assert f"{option[0].replace('no-', '')} goes with a teacher" in said.err


def test_epsilon_goes_with_a_teacher_only(nonn_plan, network_file, tmp_path):
    said = nonn_plan("partition", network_file, "--epsilon", 1, "-o", tmp_path / "p.json")
    assert said.code == 2
    assert "--epsilon" in said.err


def test_the_filter_network_is_a_graph_for_other_programs(nonn_plan, network_file, tmp_path):
    out, graphml = tmp_path / "partition.json", tmp_path / "graph.graphml"
    said = nonn_plan("partition", network_file, "-o", out, "--graphml", graphml)
    assert said.code == 0, said.err
    partition = Partition.read(out)
    read = networkx.read_graphml(graphml, node_type=int)
    graph = partition.graph()
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert read.adj == graph.adj
    assert len(partition.links) == read.number_of_edges() > 0


def test_another_file_is_not_replaced_by_a_graph(nonn_plan, network_file, tmp_path):
    (tmp_path / "graph.graphml").write_text("mine")
    said = nonn_plan("partition", network_file, "--graphml", tmp_path / "graph.graphml")
    assert said.code == 2
    assert (tmp_path / "graph.graphml").read_text() == "mine"


def test_a_saved_network_without_links_gets_no_advice_that_it_refuses(nonn_plan, tmp_path):
    path = tmp_path / "net.npz"
    np.savez(path, filter_network=np.zeros((4, 4)))
    said = nonn_plan("partition", path, "-o", tmp_path / "p.json")
    assert said.code == 2
    assert f"{path}: has no link: all weights between two filters are 0" in said.err
    assert "--top-filters" not in said.err


@pytest.mark.parametrize("name", ["net.pkl", "net.npy", "NET.PICKLE"])
def test_a_network_in_another_form_is_told_the_form_that_is_read(nonn_plan, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    said = nonn_plan("partition", tmp_path / name, "-o", tmp_path / "p.json")
    assert said.code == 2
    assert "or a saved filter network (.npz)" in said.err
    assert "numpy.savez('network.npz', filter_network=WEIGHTS)" in said.err


def test_a_saved_network_is_known_by_its_suffix_in_any_letters(nonn_plan, network_file, tmp_path):
    copy = tmp_path / "NET.NPZ"
    copy.write_bytes(network_file.read_bytes())
    said = nonn_plan("partition", copy, "-o", tmp_path / "p.json", "--json")
    assert said.code == 0
    usual = nonn_plan("partition", network_file, "-o", tmp_path / "q.json", "--json")
    assert said.document == usual.document
