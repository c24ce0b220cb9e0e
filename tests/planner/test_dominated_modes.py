from planner_questions import question

from planner.data.problem_data import resolve_problem
from planner.solve import solve
from planner.solvers.variables import remove_dominated_modes


def kept(asked, *wants):
    return [option.name for option in remove_dominated_modes(resolve_problem(asked), wants).modes]


def test_where_only_cost_counts_one_network_per_group0_remains():
    asked = question()
    assert kept(asked) == ["wrn10:4,8,8", "wrn10:8,8,16"]


def test_where_size_counts_a_small_network_that_computes_more_goes():
    # Wide early groups cost MACs, wide late ones parameters.
    asked = question(networks=("wrn10:4,8,64", "wrn10:4,32,32"))
    assert kept(asked, "params") == ["wrn10:4,8,64"]


def test_it_stays_where_memory_can_bind_or_is_the_aim():
    networks = ("wrn10:4,8,64", "wrn10:4,32,32")
    tight, ample = question(networks=networks, memory=250_000), question(networks=networks)
    assert kept(tight, "params") == list(networks)
    assert kept(ample, "params", "memory") == list(networks)


def test_what_an_earlier_stage_chose_stays_for_a_later_one():
    # Both precisions compute alike, so that the first stage takes the first of them; to the second
    # one the other is better in everything.
    for precisions in (("fp32", "int8"), ("int8", "fp32")):
        for last, best in (("memory", "int8"), ("precision", "fp32")):
            asked = question(
                precisions=precisions,
                objective=({"objective": "latency"}, {"objective": last}),
            )
            made = solve(asked)
            assert made.status == "optimal"
            assert {student.precision for student in made.students} == {best}
