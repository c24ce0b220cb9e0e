"""Maps share memory, never while both are needed, in as few bytes as any layout takes."""

import numpy as np
import pytest
from int8_students import FAMILIES, int8_student
from ortools.sat.python import cp_model

from nonn_core.firmware.arena import (
    ArenaBuffer,
    arena_bytes,
    buffers_of,
    column_bytes,
    lay_out,
    live_bytes,
    placed,
)
from nonn_core.firmware.int8_network import read_int8_network


def fewest_bytes(buffers, most):
    """The optimum: rectangles of lifetime and bytes that do not overlap (CP-SAT)."""
    model = cp_model.CpModel()
    top = model.new_int_var(0, most, "top")
    lives, places = [], []
    for buffer in buffers:
        span = buffer.last - buffer.first + 1
        lives.append(model.new_fixed_size_interval_var(buffer.first, span, ""))
        start = model.new_int_var(0, most, "")
        places.append(model.new_fixed_size_interval_var(start, buffer.size, ""))
        model.add(start + buffer.size <= top)
    model.add_no_overlap_2d(lives, places)
    model.minimize(top)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model) == cp_model.OPTIMAL
    return round(solver.objective_value)


def drawn(seed):
    rng = np.random.default_rng(seed)
    firsts = rng.integers(0, 9, 10)
    return [
        ArenaBuffer(int(size), int(first), int(first + span))
        for first, span, size in zip(
            firsts, rng.integers(0, 4, 10), rng.integers(1, 30, 10), strict=True
        )
    ]


def check_apart(offsets, buffers):
    for one, (low, buffer) in enumerate(zip(offsets, buffers, strict=True)):
        for high, other in zip(offsets[:one], buffers[:one], strict=True):
            if buffer.meets(other):
                assert low + buffer.size <= high or high + other.size <= low


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_of_a_student_take_the_fewest_bytes(name):
    network = read_int8_network(int8_student(name, FAMILIES[name]), FAMILIES[name], name)
    arena = lay_out(network)
    _, buffers = buffers_of(network, arena.layers)
    offsets = placed(buffers)
    check_apart(offsets, buffers)
    # Nothing can be below what is alive at once, so that no solver is needed.
    assert arena.maps_bytes == arena_bytes(offsets, buffers) == live_bytes(buffers)


def test_drawn_lifetimes_take_the_fewest_bytes_or_nearly():
    found, optimal = [], []
    for seed in range(20):
        buffers = drawn(seed)
        offsets = placed(buffers)
        check_apart(offsets, buffers)
        found.append(arena_bytes(offsets, buffers))
        optimal.append(fewest_bytes(buffers, found[-1]))
        assert live_bytes(buffers) <= optimal[-1] <= found[-1]
    assert sum(found) <= 1.02 * sum(optimal)


def test_columns_lie_beside_all_that_is_alive():
    name, shape = "wrn10:8,4,4", (1, 8, 8)
    network = read_int8_network(int8_student(name, shape), shape, name)
    arena = lay_out(network)
    places, buffers = buffers_of(network, arena.layers)
    offsets = placed(buffers)
    assert arena.offsets == {each: offsets[place] for each, place in places.items()}
    sizes = [column_bytes(network, layer) for layer in arena.layers]
    for step, (start, size) in enumerate(zip(arena.scratch, sizes, strict=True)):
        assert start + size <= arena.maps_bytes + arena.columns_bytes
        for low, buffer in zip(offsets, buffers, strict=True):
            if size and buffer.first <= step <= buffer.last:
                assert start + size <= low or low + buffer.size <= start
    # Two columns of 3x3 windows on the stem's 16 channels; most columns stand in gaps.
    assert max(sizes) == 288
    ends = [start + size for start, size in zip(arena.scratch, sizes, strict=True)]
    assert sum(end <= arena.maps_bytes for end in ends) > len(ends) / 2
