from planner_questions import question

from planner.dominance import without_dominated
from planner.instance import instance_of


def kept(asked, **wanted):
    return [option.name for option in without_dominated(instance_of(asked), **wanted).options]


def test_where_only_cost_counts_one_network_per_group0_remains():
    asked = question()
    assert kept(asked, more_params=False, fewer_elements=False) == ["wrn10:4,8,8", "wrn10:8,8,16"]


def test_where_size_counts_a_small_network_that_computes_more_goes():
    # Wide early groups cost MACs, wide late ones parameters.
    asked = question(networks=("wrn10:4,8,64", "wrn10:4,32,32"))
    assert kept(asked, more_params=True, fewer_elements=False) == ["wrn10:4,8,64"]


def test_it_stays_where_memory_can_bind_or_is_the_aim():
    networks = ("wrn10:4,8,64", "wrn10:4,32,32")
    tight, ample = question(networks=networks, memory=250_000), question(networks=networks)
    assert kept(tight, more_params=True, fewer_elements=False) == list(networks)
    assert kept(ample, more_params=True, fewer_elements=True) == list(networks)
