"""A workload of one's own: two boards race for an image, the first reply counts."""

from profiles.fleet import parse_fleet, resolve
from simulator.engine.simulation import simulate
from simulator.graph_builder import GraphBuilder
from simulator.scenario import Poisson, Scenario


def race(fleet="rpi-3b,odroid-xu4s", macs=83_500_000, image_bytes=12_288):
    host, boards = resolve(parse_fleet(fleet))
    build = GraphBuilder(host)
    replies = []
    for board in boards:
        sent = build.send(board, image_bytes)
        done = build.compute(board, macs, after=(sent,))
        replies.append(build.reply(board, 184, after=(done,), students=("it",)))
    build.join((build.first(replies),))
    return build.graph()


if __name__ == "__main__":
    result = simulate(race(), 1000, Scenario(arrivals=Poisson(5.0), seed=1))
    print(f"mean {result.total_ms:.1f} ms, p99 {result.p99_ms:.1f} ms")
