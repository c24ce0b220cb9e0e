"""Properties of every model split over any fleet: recurrences, conservation, monotony."""

from dataclasses import replace
from itertools import combinations_with_replacement, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_hardware import figure
from split_models import boards, fleets, hosts, tables

from profiles.device import compute_mj, compute_ms, quantity_value
from profiles.link import wire_ms
from simulator.engine.simulation import simulate
from simulator.task_graph import period_ms
from simulator.workloads import model_split, pipeline, spatial_split
from simulator.workloads.layer_parts import input_region, output_region, part_of_layer
from simulator.workloads.spatial_split import cut_tiles, fusable

TOLERANCE_MS = 1e-6  # 1e-9 s

CUTS = st.sampled_from([spatial_split.cut_slices, spatial_split.cut_grid])
ROUNDS = st.sampled_from(
    [
        (spatial_split.cut_slices, spatial_split.slices_graph),
        (spatial_split.cut_grid, spatial_split.grid_graph),
    ]
)
few = settings(max_examples=30, deadline=None)


def close(ms):
    return pytest.approx(ms, rel=0, abs=TOLERANCE_MS)


def total_ms(split):
    return simulate(split).total_ms


def layers_ms(device, macs):
    """Time of so many MACs, the fixed part left out."""
    return compute_ms(device, macs) - quantity_value(device, "compute_fixed_ms")


def send_ms(board, values):
    return quantity_value(board.device, "message_ms") + wire_ms(board.link, 4 * values)


def joined_ms(host):
    return host.hosting.join_fixed_ms.value


# Channel split


def exchanged_ms(fleet, layer, done):
    """Return when each board has all shares: rounds of messages on links that are free."""
    count = len(fleet)
    meet = max(done) + max(quantity_value(board.device, "exchange_ms") for board in fleet)
    area = layer.out_height * layer.out_width
    up_ms, down_ms = [meet] * count, [meet] * count
    for distance in range(1, count):
        for number, sender in enumerate(fleet):
            other = (number + distance) % count
            size_bytes = 4 * area * len(range(number, layer.out_channels, count))
            if size_bytes:
                on_wire_ms = max(
                    wire_ms(board.link, size_bytes) for board in (sender, fleet[other])
                )
                end_ms = max(up_ms[number], down_ms[other])
                end_ms += quantity_value(sender.device, "peer_message_ms") + on_wire_ms
                up_ms[number] = down_ms[other] = end_ms
    return [max(pair) for pair in zip(up_ms, down_ms, strict=True)]


@few
@given(tables, fleets())
def test_a_channel_split_follows_its_recurrence(table, fleet):
    count = len(fleet)
    done = [quantity_value(board.device, "compute_fixed_ms") for board in fleet]
    for layer in table:
        for number, board in enumerate(fleet):
            channels = len(range(number, layer.out_channels, count))
            done[number] += layers_ms(board.device, layer.macs * channels // layer.out_channels)
        if layer.kind == "conv" and count > 1:
            done = exchanged_ms(fleet, layer, done)
    assert total_ms(model_split.channel_split_graph(table, fleet)) == close(max(done))


@few
@given(tables, fleets())
def test_every_board_sends_its_share_of_each_convolution_to_every_other_one(table, fleet):
    result = simulate(model_split.channel_split_graph(table, fleet))
    sent = sum(row.size_bytes for row in result.messages)
    outputs = sum(layer.out_elements for layer in table if layer.kind == "conv")
    assert sent == 4 * outputs * (len(fleet) - 1)


@given(tables, st.integers(1, 9))
def test_shares_of_channels_are_the_model(table, count):
    for layer in table:
        found = [model_split.channel_share(layer, number, count) for number in range(count)]
        shares = [each for each in found if each is not None]
        assert sum(each.macs for each in shares) == layer.macs
        assert sum(each.weights for each in shares) == layer.weights
        assert sum(each.out_elements for each in shares) == layer.out_elements
        assert max(each.out_channels for each in shares) - 1 <= layer.out_channels / count


# Slices and grids


@given(tables, st.lists(st.floats(0.01, 100), min_size=1, max_size=9), CUTS)
def test_regions_of_boards_cover_each_layer_once(table, speeds, cut):
    for layer in table:
        if layer.kind != "conv":
            continue
        regions = [region for region in cut(layer, speeds) if region is not None]
        places = [
            (row, column)
            for region in regions
            for row in range(region.rows.start, region.rows.end)
            for column in range(region.columns.start, region.columns.end)
        ]
        assert len(places) == len(set(places)) == output_region(layer).area
        assert sum(part_of_layer(layer, region).macs for region in regions) == layer.macs


@given(tables, st.integers(2, 6))
def test_neighbours_both_read_at_least_the_kernel_less_its_stride(table, count):
    for layer in table:
        spans = [
            input_region(layer, region).rows
            for region in spatial_split.cut_slices(layer, [1.0] * count)
            if region is not None and layer.out_height >= layer.out_width
        ]
        for above, below in pairwise(spans):
            cut_off = layer.in_height - below.start  # no more rows than there are
            halo = min(layer.kernel - layer.stride, cut_off)
            assert layer.kind == "pool" or above.end - below.start >= halo


@few
@given(tables, fleets(), hosts(), ROUNDS)
def test_rounds_follow_their_recurrence(table, fleet, host, way):
    """Each convolution is a fan-out of its own; normalisations behind it run where it ran."""
    cut, graph = way
    speeds = spatial_split.board_speeds(table, fleet)
    now_ms, began, norms, latest = 0.0, set(), {}, 0
    host_macs = 0
    for position, layer in enumerate(table):
        if layer.kind in ("pool", "fc"):
            host_macs += layer.macs
        if layer.kind == "norm":
            norms[latest] = norms.get(latest, 0) + layer.macs
        if layer.kind == "conv":
            latest = position
    for position, layer in enumerate(table):
        if layer.kind != "conv":
            continue
        sent_ms, ends_ms = now_ms, []
        for board, region in zip(fleet, cut(layer, speeds), strict=True):
            if region is None:
                continue
            sent_ms += send_ms(board, input_region(layer, region).area * layer.in_channels)
            share = region.area / (layer.out_height * layer.out_width)
            busy_ms = layers_ms(board.device, share * (layer.macs + norms.get(position, 0)))
            if board.name not in began:
                busy_ms += quantity_value(board.device, "compute_fixed_ms")
            began.add(board.name)
            returned_ms = wire_ms(board.link, 4 * region.area * layer.out_channels)
            ends_ms.append(sent_ms + busy_ms + returned_ms)
        now_ms = max(ends_ms) + joined_ms(host)
    assert total_ms(graph(table, fleet, host)) == close(now_ms + compute_ms(host, host_macs))


# Fused tiles


@st.composite
def tilings(draw):
    table = draw(tables)
    return table, {
        "fused": draw(st.sampled_from(fusable(table))),
        "rows": draw(st.integers(1, 4)),
        "columns": draw(st.integers(1, 4)),
    }


@few
@given(tilings(), fleets(), hosts())
def test_fused_tiles_follow_their_recurrence(tiling, fleet, host):
    table, shape = tiling
    fused = shape["fused"]
    sent_ms = 0.0
    done_ms, returned_ms = {}, {}
    for number, tile in enumerate(cut_tiles(table, **shape)):
        board = fleet[number % len(fleet)]
        sent_ms += send_ms(board, tile.reads.area * table[0].in_channels)
        fixed_ms = 0 if board in done_ms else quantity_value(board.device, "compute_fixed_ms")
        done_ms[board] = max(sent_ms, done_ms.get(board, 0)) + fixed_ms
        done_ms[board] += layers_ms(board.device, tile.macs)
        returned_ms[board] = max(done_ms[board], returned_ms.get(board, 0)) + wire_ms(
            board.link, 4 * tile.writes.area * table[fused - 1].out_channels
        )
    end_ms = max(returned_ms.values()) + joined_ms(host)
    if fused < len(table):
        end_ms += compute_ms(host, sum(layer.macs for layer in table[fused:]))
    assert total_ms(spatial_split.tiles_graph(table, fleet, host, **shape)) == close(end_ms)


@few
@given(tilings())
def test_tiles_write_each_place_once_and_compute_no_less_than_the_model(tiling):
    table, shape = tiling
    fused = shape["fused"]
    found = cut_tiles(table, **shape)
    assert sum(tile.writes.area for tile in found) == output_region(table[fused - 1]).area
    for position, layer in enumerate(table[:fused]):
        macs = sum(tile.layers[position].macs for tile in found)
        if position == fused - 1:
            assert macs == layer.macs
        elif layer.kind == "conv":
            # A stride may pass over a layer's last rows, which then nobody needs.
            assert macs >= 0.7 * layer.macs
        assert macs <= len(found) * layer.macs


# Cuts


@few
@given(tables, boards("phone"), hosts(), st.data())
def test_a_layer_cut_takes_the_sum_of_its_steps(table, board, host, data):
    cut = data.draw(st.integers(0, len(table)))
    alive = table[0].in_elements
    if cut:
        alive = table[cut - 1].out_elements + table[cut - 1].held_elements
    near = sum(layer.macs for layer in table[:cut])
    far = sum(layer.macs for layer in table[cut:])
    wanted_ms = compute_ms(board.device, near) if cut else 0.0
    if cut < len(table):
        wanted_ms += wire_ms(board.link, 4 * alive) + joined_ms(host) + compute_ms(host, far)
    assert model_split.layer_cut_latency_ms(table, board, host, cut) == close(wanted_ms)
    assert total_ms(model_split.layer_cut_graph(table, board, host, cut)) == close(wanted_ms)


@few
@given(tables, boards("phone"), hosts())
def test_no_layer_cut_beats_the_best(table, board, host):
    everywhere = range(len(table) + 1)
    for aim, measure in (
        ("latency", model_split.layer_cut_latency_ms),
        ("energy", model_split.layer_cut_board_mj),
    ):
        best = model_split.best_cut(table, board, host, aim)
        assert measure(table, board, host, best) == min(
            measure(table, board, host, cut) for cut in everywhere
        )


@few
@given(tables, fleets(most=3), hosts(), st.integers(0, 60))
def test_no_pipeline_beats_the_best(table, fleet, host, start):
    """Brute force over all cuts of some layers of the model."""
    layers = table[start : start + 7] or table[:7]
    splits = [
        pipeline.pipeline_graph(layers, fleet, host, cuts)
        for cuts in combinations_with_replacement(range(len(layers) + 1), len(fleet) - 1)
    ]
    for aim, measure in (("latency", pipeline.pipeline_latency_ms), ("throughput", period_ms)):
        best = pipeline.pipeline_graph(
            layers, fleet, host, pipeline.best_cuts(layers, fleet, host, aim)
        )
        assert measure(best) == close(min(map(measure, splits)))


@few
@given(tables, fleets(), hosts(), st.data())
def test_a_pipeline_alone_takes_the_sum_of_its_steps(table, fleet, host, data):
    bound = st.integers(0, len(table))
    cuts = sorted(data.draw(st.lists(bound, min_size=len(fleet) - 1, max_size=len(fleet) - 1)))
    split = pipeline.pipeline_graph(table, fleet, host, cuts)
    assert total_ms(split) == close(pipeline.pipeline_latency_ms(split))
    computing = [step.duration_ms for step in split.steps if step.activity == "compute"]
    used = [
        (board, sum(layer.macs for layer in table[start:end]))
        for board, (start, end) in zip(fleet, pairwise((0, *cuts, len(table))), strict=True)
        if start < end
    ]
    assert computing == pytest.approx([compute_ms(board.device, macs) for board, macs in used])


# All ways


def all_ways(table, fleet, host):
    middle = len(table) // 2
    return [
        model_split.channel_split_graph(table, fleet, host),
        spatial_split.slices_graph(table, fleet, host),
        spatial_split.grid_graph(table, fleet, host),
        spatial_split.tiles_graph(table, fleet, host, fused=fusable(table)[0], rows=2, columns=2),
        model_split.layer_cut_graph(table, fleet[0], host, middle),
        pipeline.pipeline_graph(table, fleet, host, [middle] * (len(fleet) - 1)),
    ]


@few
@given(tables, fleets(), hosts(), st.floats(1, 100))
def test_faster_links_never_make_it_slower(table, fleet, host, factor):
    faster = tuple(
        replace(
            board,
            link=board.link.model_copy(
                update={"bits_per_s": figure(factor * board.link.bits_per_s.value)}
            ),
        )
        for board in fleet
    )
    ways = zip(all_ways(table, fleet, host), all_ways(table, faster, host), strict=True)
    for before, after in ways:
        assert total_ms(after) <= total_ms(before) + TOLERANCE_MS


@few
@given(tables, boards("one"), hosts(), st.integers(1, 4))
def test_energy_is_that_of_the_model_and_a_fixed_part_per_board(table, board, host, count):
    fleet = tuple(replace(board, name=f"board-{i}") for i in range(count))
    fixed_mj = compute_mj(board.device, 0)
    model_mj = compute_mj(board.device, sum(layer.macs for layer in table)) - fixed_mj
    split = model_split.channel_split_graph(table, fleet, host)
    assert simulate(split).energy_total_mj == pytest.approx(count * fixed_mj + model_mj)
    cuts = [len(table) * (i + 1) // count for i in range(count - 1)]
    split = pipeline.pipeline_graph(table, fleet, host, cuts)
    assert simulate(split).energy_total_mj == pytest.approx(count * fixed_mj + model_mj)


@few
@given(tables, boards("alone"), hosts())
def test_one_board_does_what_it_does_alone(table, board, host):
    """Split or not, it is the model on that board, and two messages with the host."""
    alone_ms = compute_ms(board.device, sum(layer.macs for layer in table))
    messages_ms = send_ms(board, table[0].in_elements) + wire_ms(board.link, 4 * 5)
    wanted_ms = alone_ms + messages_ms + joined_ms(host)
    assert total_ms(model_split.channel_split_graph(table, (board,))) == close(alone_ms)
    assert total_ms(model_split.channel_split_graph(table, (board,), host)) == close(wanted_ms)
    assert total_ms(pipeline.pipeline_graph(table, (board,), host, ())) == close(wanted_ms)
    whole = spatial_split.tiles_graph(table, (board,), host, fused=len(table), rows=1, columns=1)
    # A tile leaves out rows that a pooling or a stride passes over.
    assert total_ms(whole) <= wanted_ms + TOLERANCE_MS
    assert total_ms(whole) >= 0.7 * alone_ms + joined_ms(host)
