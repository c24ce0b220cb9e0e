"""A segmentation as a task graph, for the simulator."""

from itertools import accumulate

from nonn_core.networks.family import parse_network
from planner.data.problem_data import host_device
from planner.pipelines.segment_costs import cut_model
from simulator.workloads.pipeline import pipeline_graph


def segmentation_graph(problem, segmentation):
    """Task graph of one image."""
    network = parse_network(segmentation.network)
    model = cut_model(network, problem.image_shape, problem.classes, segmentation.precision)
    cuts = tuple(accumulate(part.layers for part in segmentation.parts))[:-1]
    boards = {board.name: board for board in problem.pipeline_boards}
    row = [boards[name] for name in segmentation.boards]
    return pipeline_graph(model.table, row, host_device(problem), cuts)
