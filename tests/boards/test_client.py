"""The fan-out with boards that do what a test says: late, silent, refusing, gone and back."""

import os
import select
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from made_bundle import make_bundle

from boards.host.client import InferenceClient, QuorumPolicy
from boards.host.connection import BoardTask, ConnectionLostError, Reconnector, Reply
from boards.host.grpc_connection import GrpcConnection, _PartialReply
from boards.host.host_report import AnswerLog
from boards.host.inference import Answer, BoardTiming, FeatureClassifier
from boards.host.session import HostImage
from boards.protocol.address import BoardAddress
from boards.protocol.frames import Features
from nonn_common.errors import InputError

IMAGE = (1, 8, 8)
PIXELS = np.zeros((1, *IMAGE), np.float32)


class Board:
    """A connection that answers at once, or what and when a test says."""

    protocol = "frames"
    unsent = False

    def __init__(self, width):
        self._waker, self._bell = os.pipe()
        self.values = np.ones((1, width), np.float32)
        self.computed_ns = 1
        self._said = []
        self.asked = []
        self.at_once = True
        self.refuses = self.breaks = self.closed = False

    def fileno(self):
        return self._waker

    def send(self, request):
        if self.breaks:
            raise ConnectionLostError("broken pipe")
        self.asked.append(request.number)
        if self.at_once:
            self.answer(request.number)

    def answer(self, *numbers):
        for number in numbers:
            if self.refuses:
                self._said.append(Reply(number, None, "RESOURCE_EXHAUSTED: full"))
            else:
                self._said.append(Reply(number, Features(self.values, 0, self.computed_ns)))
        os.write(self._bell, b"!")

    def lose(self):
        self._said.append(ConnectionLostError("reset by peer"))
        os.write(self._bell, b"!")

    def flush(self):
        """Nothing waits."""

    def replies(self):
        os.read(self._waker, 4096)
        said, self._said = self._said, []
        for one in said:
            if isinstance(one, ConnectionLostError):
                raise one
        return said

    def close(self):
        if not self.closed:
            self.closed = True
            os.close(self._waker)
            os.close(self._bell)


@pytest.fixture
def bundle(tmp_path):
    return tmp_path / "bundle", make_bundle(tmp_path / "bundle", filters=(2, 3), image=IMAGE)


@pytest.fixture
def host(bundle):
    """Ask boards, each of which holds the students that `placement` names, on fakes."""
    folder, manifest = bundle
    opened = []

    def asking(placement, **policy):
        models = {model.name: model for model in manifest.models}
        tasks = [
            BoardTask(
                BoardAddress(name=name, address=f"127.0.0.1:{1 + n}"),
                tuple(models[student] for student in students),
            )
            for n, (name, students) in enumerate(placement.items())
        ]
        boards, down = {}, set()

        def connect(task):
            if task.name in down:
                raise ConnectionLostError("refused")
            boards[task.name] = Board(task.answer_values)
            return boards[task.name]

        client = InferenceClient(
            tasks,
            FeatureClassifier(folder, manifest),
            Reconnector(connect),
            QuorumPolicy(**policy),
        )
        opened.append(client)
        assert client.wait_connected(10)
        return client, boards, down

    yield asking
    for client in opened:
        client.close()


TWO = {"a": ["student-0"], "b": ["student-1"]}


def until(client, missing, seconds=10):
    end = time.monotonic() + seconds
    while set(client.ask(PIXELS).missing) != missing:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_board_that_answers_no_number_is_missing_and_named(host, value):
    client, boards, _ = host(TWO)
    boards["a"].values = np.array([[1, value]], np.float32)
    answer = client.ask(PIXELS)
    assert answer.missing == {"student-0": "a: answered a value that is no finite number"}
    assert np.isfinite(answer.logits).all()


def test_a_board_that_claims_more_time_than_passed_is_missing_and_named(host):
    client, boards, _ = host(TWO)
    boards["a"].computed_ns = 2**63
    answer = client.ask(PIXELS)
    assert set(answer.missing) == {"student-0"}
    assert answer.missing["student-0"].startswith("a: says that it took 9.22337e+12 ms; its answer")
    assert [one.board for one in answer.timings] == ["b"]


def test_a_copy_answers_for_a_board_that_answers_no_number(host):
    client, boards, _ = host({"a": ["student-0"], "b": ["student-1"], "c": ["student-0"]})
    boards["a"].values[:] = np.nan
    assert not client.ask(PIXELS).missing


def test_boards_that_answer_after_the_deadline_get_each_image(host):
    """The next image waits until they have spoken: the host does not race through images."""
    client, boards, _ = host(TWO, deadline_ms=500)
    for board in boards.values():
        board.at_once = False

    def answer_late():
        for number in (1, 2):
            while not all(number in board.asked for board in boards.values()):
                time.sleep(0.01)
            time.sleep(0.55)
            for board in boards.values():
                board.answer(number)

    late = threading.Thread(target=answer_late, daemon=True)
    late.start()
    missing = [len(client.ask(PIXELS).missing) for _ in range(2)]
    assert missing == [2, 2]
    assert [board.asked for board in boards.values()] == [[1, 2]] * 2
    late.join()


def test_where_enough_students_can_be_asked_a_late_board_is_not_waited_for(host):
    client, boards, _ = host(TWO, quorum=1, deadline_ms=100)
    boards["b"].at_once = False
    for _ in range(3):
        assert set(client.ask(PIXELS).missing) == {"student-1"}
    time.sleep(0.15)
    # b is late now, and never speaks: with 300 images a wait for it would take half a minute.
    for _ in range(300):
        assert set(client.ask(PIXELS).missing) == {"student-1"}
    assert len(boards["a"].asked) == 303
    assert len(boards["b"].asked) < 303


def test_an_image_waits_for_a_fleet_that_comes_back(host):
    """All boards are gone for a moment: no image is unanswered."""
    client, boards, down = host(TWO)
    down |= {"a", "b"}
    for board in list(boards.values()):
        board.lose()
    back = threading.Timer(0.3, down.clear)
    back.start()
    assert all(len(client.ask(PIXELS).missing) < 2 for _ in range(5))
    back.join()


def test_a_fleet_that_is_gone_for_good_does_not_hold_up_each_image(host, monkeypatch):
    monkeypatch.setattr("boards.host.client._UNRESPONSIVE_S", 0.1)
    client, boards, down = host(TWO, deadline_ms=100)
    down |= {"a", "b"}
    for board in list(boards.values()):
        board.lose()
    # A deadline for each of them would be 50 s.
    for _ in range(500):
        assert set(client.ask(PIXELS).missing) == {"student-0", "student-1"}


def test_images_that_nobody_answered_are_in_no_percentile():
    log = AnswerLog(["a"], ["cat", "dog"])
    image = HostImage("one", PIXELS, 0)
    nothing = np.zeros((1, 2), np.float32)
    timing = BoardTiming("a", 0.1, 60.0, 0.0, 55.0)
    for _ in range(3):
        log.add(image, Answer(1, nothing, {"student-0": "late"}, 0.01, ()), students=1)
    assert log.report(1.0, {}).total_ms is None
    log.add(image, Answer(2, nothing, {}, 61.0, (timing,)), students=1)
    report = log.report(1.0, {})
    assert (report.images, report.unanswered) == (4, 3)
    assert (report.total_ms.p50_ms, report.total_ms.p99_ms) == (61.0, 61.0)


def test_after_all_boards_were_gone_those_that_come_back_are_asked_again(host):
    client, boards, down = host(TWO, deadline_ms=200)
    down |= {"a", "b"}
    for board in list(boards.values()):
        board.lose()
    until(client, {"student-0", "student-1"})
    down.clear()
    until(client, set())


def test_after_all_boards_were_silent_for_a_deadline_their_answers_are_read(host):
    client, boards, _ = host(TWO, deadline_ms=50)
    for board in boards.values():
        board.at_once = False
    assert set(client.ask(PIXELS).missing) == {"student-0", "student-1"}
    assert set(client.ask(PIXELS).missing) == {"student-0", "student-1"}
    for board in boards.values():
        board.answer(*board.asked)
        board.at_once = True
    assert not client.ask(PIXELS).missing


def test_a_connection_that_ended_between_two_images_costs_the_one_board_only(host):
    client, boards, down = host({"a": ["student-0"], "b": ["student-1"], "c": ["student-0"]})
    client.ask(PIXELS)
    down.add("a")
    gone = boards["a"]
    gone.lose()
    answer = client.ask(PIXELS)
    assert not answer.missing
    assert gone.closed
    assert len(gone.asked) == 1


def test_what_came_while_the_next_image_was_waited_for_is_no_late_answer(host):
    client, _, _ = host(TWO, deadline_ms=50, in_flight=2)

    def slowly():
        for _ in range(3):
            time.sleep(0.1)
            yield PIXELS

    assert [dict(answer.missing) for answer in client.stream(slowly())] == [{}] * 3


def test_a_late_answer_that_came_since_is_no_silence(host):
    client, boards, _ = host(TWO, quorum=1, deadline_ms=100)
    boards["b"].at_once = False
    for count in range(1, 5):
        client.ask(PIXELS)
        boards["b"].answer(boards["b"].asked[-1])
        time.sleep(0.15)
        assert len(boards["b"].asked) == count


def test_two_refusals_of_one_image_are_one_answer(host):
    told = []
    gathered = _PartialReply(7, 2, told.append)
    gathered.refuse("NOT_FOUND: student-0")
    gathered.refuse("NOT_FOUND: student-1")
    assert told == [Reply(7, None, "NOT_FOUND: student-0")]
    client, boards, _ = host(TWO, deadline_ms=50)
    boards["a"].refuses = True
    client.ask(PIXELS)
    boards["a"].answer(1)  # once more, to nobody
    boards["a"].refuses = False
    time.sleep(0.1)
    assert not client.ask(PIXELS).missing


def test_a_replica_that_was_spared_is_asked_where_sending_to_the_other_fails(host):
    client, boards, down = host({"a": ["student-0"], "b": ["student-0"], "c": ["student-1"]})
    boards["a"].at_once = False
    for _ in range(5):
        assert not client.ask(PIXELS).missing
    behind = len(boards["a"].asked)
    assert not client.ask(PIXELS).missing
    assert len(boards["a"].asked) == behind
    down.add("b")
    boards["b"].breaks = True
    boards["a"].at_once = True
    assert not client.ask(PIXELS).missing
    assert len(boards["a"].asked) == behind + 1


def test_a_silent_board_is_not_waited_for_again_whatever_others_do(host):
    client, boards, _ = host(TWO, deadline_ms=200)
    boards["a"].at_once = False
    assert client.ask(PIXELS).total_ms >= 200
    boards["b"].refuses = True
    for _ in range(5):
        answer = client.ask(PIXELS)
        assert set(answer.missing) == {"student-0", "student-1"}
        assert answer.total_ms < 200
    assert len(boards["a"].asked) == 1


def test_keys_that_are_gone_for_a_while_are_a_reason_and_not_the_end():
    tried = threading.Semaphore(0)
    there = Board(2)
    outcomes = [InputError("no longer holds usable keys"), there]

    def connect(_):
        tried.release()
        found = outcomes.pop(0)
        if isinstance(found, InputError):
            raise found
        return found

    reconnector = Reconnector(connect)
    task = BoardTask(BoardAddress(name="a", address="127.0.0.1:1"), ())
    reconnector.request(task)
    assert tried.acquire(timeout=10)
    assert tried.acquire(timeout=10)
    found = []
    while len(found) < 2:
        found += reconnector.results()
        time.sleep(0.01)
    reconnector.close()
    there.close()
    assert found == [("a", "no longer holds usable keys"), ("a", there)]


def test_a_fallback_does_not_make_a_board_seem_silent(host):
    client, boards, down = host(
        {"a": ["student-0"], "b": ["student-0"], "c": ["student-1"]}, deadline_ms=300
    )
    boards["b"].at_once = False
    for _ in range(4):
        assert not client.ask(PIXELS).missing
    behind = len(boards["b"].asked)

    def turn():
        # The board catches up, and then its replica is gone, late in the deadline.
        time.sleep(0.05)
        boards["b"].answer(*boards["b"].asked)
        time.sleep(0.2)
        down.add("a")
        boards["a"].lose()

    boards["a"].at_once = False
    meanwhile = threading.Thread(target=turn)
    meanwhile.start()
    client.ask(PIXELS)
    meanwhile.join()
    assert len(boards["b"].asked) == behind + 1
    boards["b"].at_once = True
    assert not client.ask(PIXELS).missing
    assert len(boards["b"].asked) == behind + 2


def test_replies_before_the_end_of_a_standard_connection_count():
    connection = GrpcConnection(SimpleNamespace(close=lambda: None), SimpleNamespace())
    one = Reply(1, Features(np.ones((1, 2), np.float32), 0, 1))
    for each in (one, ConnectionLostError("UNAVAILABLE: gone"), one):
        connection._put(each)
    assert connection.replies() == [one]
    assert select.select([connection], [], [], 1)[0]
    with pytest.raises(ConnectionLostError, match="gone"):
        connection.replies()
    connection.close()
