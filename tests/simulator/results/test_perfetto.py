"""The trace for Perfetto, read again by a reader of its own."""

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise

import pytest
from made_hardware import device, figure, link
from split_models import conv, fc

from nonn_common.errors import SimulationError
from profiles.fleet import Board
from simulator.engine.simulation import simulate
from simulator.graph_builder import GraphBuilder
from simulator.results.perfetto import trace_json, write_trace
from simulator.scenario import Periodic, Poisson, RenewalFailure, Scenario, TimedFailure
from simulator.task_graph import Message, Step, Transit
from simulator.workloads import model_split

NS_PER_US = 1000


@dataclass(frozen=True)
class Box:
    start: int
    end: int
    name: str
    cat: str
    args: dict


class Trace:
    """View of the file in a viewer: threads with boxes, arrows, counters; all times in ns."""

    def __init__(self, text):
        self.events = json.loads(text, parse_float=Decimal)["traceEvents"]
        self.processes, self.threads = {}, {}
        self.boxes, self.counters = defaultdict(list), defaultdict(list)
        self.arrows = defaultdict(list)
        for event in self.events:
            self._read(event)

    def _read(self, event):
        phase, place = event["ph"], (event["pid"], event["tid"])
        if phase == "M":
            named = {"process_name": self.processes, "thread_name": self.threads}
            if event["name"] in named:
                key = place[0] if event["name"] == "process_name" else place
                named[event["name"]][key] = event["args"]["name"]
        elif phase == "X":
            start = ns(event["ts"])
            box = Box(start, start + ns(event["dur"]), event["name"], event["cat"], event["args"])
            self.boxes[place].append(box)
        elif phase == "C":
            ((unit, value),) = event["args"].items()
            self.counters[place[0], event["name"], unit].append((ns(event["ts"]), float(value)))
        elif phase in "sf":
            self.arrows[event["id"]].append((phase, place, ns(event["ts"]), event.get("bp")))

    def title(self, place):
        return self.processes[place[0]], self.threads[place]

    def named(self, process, thread):
        return next(
            boxes for place, boxes in self.boxes.items() if self.title(place) == (process, thread)
        )

    def ends(self):
        """The two boxes that each arrow binds to, with their places."""
        for arrow in self.arrows.values():
            (first, there, at, _), (last, here, then, binding) = arrow
            assert (first, last, binding) == ("s", "f", "e")
            yield (there, self._box(there, at)), (here, self._box(here, then))

    def _box(self, place, at):
        (box,) = [box for box in self.boxes[place] if box.start == at and "lost" not in box.args]
        return box


def ns(microseconds):
    found = Decimal(microseconds) * NS_PER_US
    assert found == int(found), f"{microseconds} us is no whole number of ns"
    return int(found)


@pytest.fixture
def noisy(make_fan_out, slow, fast):
    """Losses, retries, latency and jitter on a half-duplex link; power of everything."""
    lossy = slow.link.model_copy(
        update={
            "duplex": "half",
            "loss_pct": figure(30),
            "retransmit_ms": figure(2),
            "latency_ms": figure(3),
            "jitter_ms": figure(4),
        }
    )
    boards = tuple(
        Board(board.name, _powered(board.device), link)
        for board, link in ((slow, lossy), (fast, fast.link))
    )
    return make_fan_out(boards=boards)


def _powered(profile):
    return profile.model_copy(update={"idle_w": figure(0.7), "radio_w": figure(0.3)})


def split(host, exchange_ms=2):
    profile = device(
        "tortoise", compute_fixed_ms=1, compute_ms_per_mmac=1000, exchange_ms=exchange_ms,
        peer_message_ms=0.3, message_ms=1, power_fixed_w=1, power_busy_w=2, idle_w=1,
    )  # fmt: skip
    wire = link("wire", 1_000_000)
    boards = tuple(Board(f"board-{i}", profile, wire) for i in range(3))
    return model_split.channel_split_graph((conv(2, 4, 5), conv(4, 4, 5), fc(4, 10)), boards, host)


BUSY = Scenario(arrivals=Periodic(40), seed=3)
FAILING = Scenario(
    arrivals=Poisson(20),
    failures=(TimedFailure(("slow",), 60, 130), RenewalFailure(("fast",), 300, 30)),
    seed=5,
)
LOSING = replace(FAILING, on_failure="lose")


@pytest.fixture(params=["closed", "busy", "failing", "losing", "split", "at once", "no host"])
def run(request, noisy, make_fan_out, host):
    if request.param == "split":
        return simulate(split(host), 3, BUSY)
    if request.param in ("at once", "no host"):  # what takes no time: exchange, and also the join
        return simulate(split(host if request.param == "at once" else None, exchange_ms=0), 3)
    if request.param == "closed":
        return simulate(make_fan_out(), 4)
    return simulate(noisy, 25, {"busy": BUSY, "failing": FAILING, "losing": LOSING}[request.param])


def test_boxes_of_a_thread_never_overlap(run):
    trace = Trace(trace_json(run))
    assert trace.boxes
    for boxes in trace.boxes.values():
        ordered = sorted(boxes, key=lambda box: (box.start, box.end))
        assert all(earlier.end <= later.start for earlier, later in pairwise(ordered))


def test_numbers_are_unique_not_zero_and_named(run):
    trace = Trace(trace_json(run))
    places = set(trace.boxes)
    tids = [tid for _, tid in places]
    pids = {pid for pid, _ in places}
    assert len(set(tids)) == len(tids)
    assert not pids & set(tids)
    assert all(number > 0 for event in trace.events for number in (event["pid"], event["tid"]))
    assert pids <= set(trace.processes)
    assert places <= set(trace.threads)
    assert len(set(trace.processes.values())) == len(trace.processes)


def test_every_interval_is_a_box_on_each_resource_that_it_holds(run):
    trace = Trace(trace_json(run))
    steps = run.recording.graph.steps
    lasting = [row for row in run.intervals if row.start_ms < row.end_ms]
    expected = sum(len(steps[row.step].resources) for row in lasting)
    found = [
        box
        for place, boxes in trace.boxes.items()
        for box in boxes
        if not trace.threads[place].startswith("under way")
    ]
    assert len(found) == expected
    for row in lasting:
        if not row.resource:
            continue
        start, end = round(row.start_ms * 1e6), round(row.end_ms * 1e6)
        own = [box for box in found if (box.start, box.end) == (start, end)]
        assert any(box.args["image"] == row.inference for box in own)


def test_no_box_is_empty_and_every_end_of_an_arrow_lies_in_one(run):
    trace = Trace(trace_json(run))
    assert all(box.start < box.end for boxes in trace.boxes.values() for box in boxes)
    ends = [end for arrow in trace.arrows.values() for end in arrow]
    assert len(ends) == 2 * len(trace.arrows) > 0
    for _, place, at, _ in ends:
        assert any(box.start <= at < box.end for box in trace.boxes[place])


def test_arrows_come_from_what_set_off_a_step_of_no_time():
    """A barrier of 0 ms: messages come from the board that was last to compute, not from nobody."""
    trace = Trace(trace_json(simulate(split(None, exchange_ms=0))))
    sources = defaultdict(set)
    for (there, box), (here, other) in trace.ends():
        sources[other.cat, here, other.start].add((box.cat, trace.title(there)[0]))
    messages = [found for (kind, _, _), found in sources.items() if kind == "exchange"]
    assert messages
    # 4 channels on 3 boards: the first board has two of them and is the last to be through.
    assert all(found == {("compute", "board-0")} for found in messages)


def test_a_message_that_holds_nothing_is_under_way_all_the_time(host, slow):
    build = GraphBuilder(host)
    sent = build.add(
        Step("host", "send", (), 0.0, message=Message("host", "slow", 0), transit=Transit(3.0))
    )
    build.compute(slow, ms=1, after=(sent,))
    trace = Trace(trace_json(simulate(build.graph())))
    (((there, box), (_, other)),) = trace.ends()
    assert (trace.title(there), box.start, box.end) == (("host", "under way 1"), 0, 3_000_000)
    assert (other.cat, other.start) == ("compute", 3_000_000)


def test_arrows_bind_to_boxes_and_point_forward(run):
    trace = Trace(trace_json(run))
    for (_, sender), (_, receiver) in trace.ends():
        assert sender.end <= receiver.start
        assert sender.args["image"] == receiver.args["image"]


def test_arrows_lead_from_send_to_compute_to_reply_to_join(make_fan_out):
    trace = Trace(trace_json(simulate(make_fan_out(), 2)))
    found = {
        (box.args["image"], trace.title(there)[0], box.cat, trace.title(here)[0], other.cat)
        for (there, box), (here, other) in trace.ends()
    }
    expected = set()
    for image in (0, 1):
        for board in ("slow", "fast"):
            expected |= {
                (image, "host", "send", board, "compute"),
                (image, board, "compute", board, "reply"),
                (image, board, "reply", "host", "join"),
            }
    assert found == expected


def test_queues_are_never_negative_and_end_empty(run):
    trace = Trace(trace_json(run))
    queues = {key: values for key, values in trace.counters.items() if key[2] == "waiting"}
    assert queues
    for values in queues.values():
        assert all(value >= 0 for _, value in values)
        assert values[-1][1] == 0
        assert all(earlier < later for (earlier, _), (later, _) in pairwise(values))


def test_the_area_under_a_queue_is_the_time_that_was_waited(make_fan_out):
    """No failures: waiting is from ready to start, whoever waits."""
    result = simulate(make_fan_out(), 25, BUSY)
    trace = Trace(trace_json(result))
    waited = defaultdict(float)
    for row in result.intervals:
        waited[row.resource] += row.start_ms - row.ready_ms
    for (_, name, unit), values in trace.counters.items():
        if unit == "waiting":
            assert area(values) == pytest.approx(waited[name.removeprefix("queue ")], rel=1e-6)


@pytest.mark.parametrize("scenario", [BUSY, replace(FAILING, failures=FAILING.failures[1:])])
def test_the_area_under_the_watts_is_the_energy(noisy, scenario):
    result = simulate(noisy, 25, scenario)
    trace = Trace(trace_json(result))
    for row in result.boards:
        (values,) = [
            values
            for (pid, _, unit), values in trace.counters.items()
            if unit == "W" and trace.processes[pid] == row.board
        ]
        assert all(watts >= 0 for _, watts in values)
        assert values[-1] == (round(result.duration_ms * 1e6), 0)
        energy_mj = row.energy_mj + row.idle_mj + row.radio_mj
        assert area(values) / 25 == pytest.approx(energy_mj, rel=1e-3)


def area(values):
    """Of a staircase in ns, in ms."""
    return sum(value * (then - now) for (now, value), (then, _) in pairwise(values)) / 1e6


def test_tries_that_a_failure_broke_off_are_marked(noisy):
    result = simulate(noisy, 25, FAILING)
    lost = [row for row in result.intervals if row.lost]
    boxes = [box for own in Trace(trace_json(result)).boxes.values() for box in own]
    steps = result.recording.graph.steps
    marked = [box for box in boxes if box.args.get("lost")]
    assert lost
    assert len(marked) == sum(len(steps[row.step].resources) for row in lost)
    assert all("lost" in box.name and box.cat == "lost" for box in marked)


def test_images_run_from_start_to_answer(noisy):
    result = simulate(noisy, 25, LOSING)
    events = Trace(trace_json(result)).events
    begun = {event["id"]: ns(event["ts"]) for event in events if event["ph"] == "b"}
    ended = {event["id"]: ns(event["ts"]) for event in events if event["ph"] == "e"}
    lost = [event["name"] for event in events if event["ph"] == "i"]
    answered = [row for row in result.inferences if row.answered]
    assert len(lost) == result.lost > 0
    assert begun == {str(row.inference): round(row.start_ms * 1e6) for row in answered}
    assert ended == {str(row.inference): round(row.end_ms * 1e6) for row in answered}


def test_times_do_not_fall(run):
    moments = [ns(event["ts"]) for event in Trace(trace_json(run)).events if "ts" in event]
    assert moments == sorted(moments)


def test_same_seed_same_bytes(noisy):
    texts = [trace_json(simulate(noisy, 25, FAILING)) for _ in range(2)]
    other = trace_json(simulate(noisy, 25, replace(FAILING, seed=6)))
    assert texts[0] == texts[1] != other


def test_the_file_holds_the_trace(make_fan_out, tmp_path):
    result = simulate(make_fan_out())
    write_trace(result, tmp_path / "trace.json")
    assert (tmp_path / "trace.json").read_text() == trace_json(result)


def test_totals_alone_make_no_trace(make_fan_out):
    with pytest.raises(SimulationError, match="only totals"):
        trace_json(simulate(make_fan_out(), 2, keep="totals"))
