"""The fan-out: sends images to all boards, joins their answers, reconnects those that are gone.

One thread does all of it and never blocks on a board: it waits on all connections at once.  What
connects to a board that is gone runs beside it and hands over the new connection.
"""

import selectors
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from boards.host.classifier import Classifier
from boards.host.connection import Connection, ConnectionLostError, Reply, Request
from boards.host.inference import Answer, Pending
from boards.host.reconnecting import Reconnecting
from boards.host.task import Task, students_of
from boards.protocol.frames import Values

_STUCK_S = 10.0
"""A board that owes answers and says nothing for so long, or a deadline, is connected anew."""

_LOOK_NS = 100_000_000
"""How often that is looked for."""

_MOST_OWED = 256


@dataclass(frozen=True, slots=True)
class Joining:
    """When the host has waited enough: for `needs` students (None: all), at most `deadline_ms`."""

    needs: int | None = None
    deadline_ms: float = 5_000.0
    in_flight: int = 1
    """Requests that are on their way at once."""


@dataclass(slots=True)
class _Line:
    """A board's connection, and what it owes."""

    task: Task
    connection: Connection | None = None
    owes: int = 0
    heard_ns: int = 0
    down: str = "not connected yet"


class FanOut:
    """A NoNN on its boards, asked from one thread."""

    def __init__(
        self,
        tasks: Sequence[Task],
        classifier: Classifier,
        reconnecting: Reconnecting,
        joining: Joining,
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._lines = {task.name: _Line(task) for task in tasks}
        self._students = students_of(tasks)
        self._names = tuple(student.name for student in self._students)
        self._classifier = classifier
        self._reconnecting = reconnecting
        self._joining = joining
        self._needed = min(joining.needs or len(self._students), len(self._students))
        self._pending: dict[int, Pending] = {}
        self._next = 1
        self._look_again_ns = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(reconnecting, selectors.EVENT_READ, None)
        for task in tasks:
            reconnecting.want(task)

    @property
    def wires(self) -> dict[str, str]:
        """How each board that is connected is spoken to."""
        return {name: line.connection.wire for name, line in self._lines.items() if line.connection}

    @property
    def down(self) -> dict[str, str]:
        """Boards that are not connected, and why."""
        return {name: line.down for name, line in self._lines.items() if line.connection is None}

    def wait_connected(self, seconds: float) -> bool:
        """Wait until every board is connected; whether they are."""
        end_ns = time.perf_counter_ns() + int(seconds * 1e9)
        while self.down and time.perf_counter_ns() < end_ns:
            self._turn(end_ns)
        return not self.down

    def ask(self, images: Values) -> Answer:
        """Return the answer to one request of `(n, ...)` images."""
        (answer,) = self.stream([images])
        return answer

    def stream(self, requests: Iterable[Values]) -> Iterator[Answer]:
        """Yield an answer to each request, in their order, with some on their way at once.

        Where requests come slowly, an answer waits until the next one has come if more than one may
        be on its way.
        """
        waiting = iter(requests)
        order: list[int] = []
        done: dict[int, Answer] = {}
        more = True
        while more or order:
            while more and len(self._pending) < self._joining.in_flight:
                request = next(waiting, None)
                more = request is not None
                if request is not None:
                    order.append(self._send(request))
            for number in self._wait_finished():
                done[number] = self._answer(self._pending.pop(number))
            while order and order[0] in done:
                yield done.pop(order.pop(0))

    def close(self) -> None:
        """Close all connections."""
        self._reconnecting.close()
        for line in self._lines.values():
            if line.connection is not None:
                self._selector.unregister(line.connection)
                line.connection.close()
                line.connection = None
        self._selector.close()

    def _send(self, images: Values) -> int:
        """Send to every board that is there, in the plan's order; return the request's number."""
        # What happened since the last request: boards that came back, or answered, or are gone.
        self._take_in()
        number, self._next = self._next, self._next + 1
        pending = Pending(Request(number, images), time.perf_counter_ns(), self._tasks)
        self._pending[number] = pending
        silent, behind = self._spared()
        for name, line in self._lines.items():
            if line.connection is None:
                pending.not_sent(name, line.down)
            elif name in silent or name in behind:
                pending.not_sent(name, f"owes {line.owes} answers")
            else:
                self._send_to(name, line, line.connection, pending)
        pending.spared |= behind
        self._fall_back(pending)
        return number

    def _send_to(self, name: str, line: _Line, connection: Connection, pending: Pending) -> None:
        if not line.owes:
            # From when on it could have said something: not later, or its silence would seem
            # shorter than the deadline of this request.  A request that falls back to it is older.
            line.heard_ns = max(line.heard_ns, pending.started_ns)
        try:
            connection.send(pending.request)
        except ConnectionLostError as error:
            pending.not_sent(name, str(error))
            self._lose(name, str(error))
            return
        line.owes += 1
        pending.owed[name] = time.perf_counter_ns()
        if connection.unsent:
            self._watch(line)

    def _spared(self) -> tuple[set[str], set[str]]:
        """Return the boards that get no image now, because of what they still owe.

        Silent ones have said nothing for a whole deadline, and are not waited for again; those that
        are behind catch up while other boards have all of their students.
        """
        if not any(line.owes for line in self._lines.values()):
            return set(), set()
        now_ns = time.perf_counter_ns()
        silent_ns = self._joining.deadline_ms * 1e6
        open_lines = {n: line for n, line in self._lines.items() if line.connection is not None}
        silent = {
            name
            for name, line in open_lines.items()
            if line.owes > _MOST_OWED or (line.owes and now_ns - line.heard_ns >= silent_ns)
        }
        behind = {n for n, line in open_lines.items() if line.owes > self._joining.in_flight + 2}
        running = Counter(
            student
            for name in open_lines.keys() - silent - behind
            for student in self._tasks[name].students
        )
        elsewhere = {n for n in behind if all(running[each] for each in self._tasks[n].students)}
        return silent, elsewhere - silent

    def _take_in(self) -> None:
        """Take in all that has happened; no more than boards can owe."""
        for _ in range(_MOST_OWED):
            if not self._turn(0):
                return

    def _turn(self, until_ns: int) -> bool:
        """Wait until something happens, at most until then, and take it in; whether it did.

        Of a connection with many answers it takes one or a few at a time.
        """
        now_ns = time.perf_counter_ns()
        seconds = max(0.0, (until_ns - now_ns) / 1e9)
        events = self._selector.select(min(seconds, 1.0))
        for key, mask in events:
            if key.data is None:
                self._take_connections()
            elif self._lines[key.data].connection is key.fileobj:
                self._serve(key.data, mask)
        if now_ns >= self._look_again_ns:
            self._look_again_ns = now_ns + _LOOK_NS
            self._drop_stuck(now_ns)
        return bool(events)

    def _serve(self, name: str, mask: int) -> None:
        """Send what waits to a board, and take what it says."""
        line = self._lines[name]
        connection = line.connection
        if connection is None:
            return
        try:
            if mask & selectors.EVENT_WRITE:
                connection.flush()
                self._watch(line)
            if mask & selectors.EVENT_READ:
                for reply in connection.replies():
                    self._take(name, line, reply)
        except ConnectionLostError as error:
            self._lose(name, str(error))

    def _take(self, name: str, line: _Line, reply: Reply) -> None:
        """Take a reply; one to a request that has been answered without it is late."""
        now_ns = time.perf_counter_ns()
        line.owes, line.heard_ns = max(0, line.owes - 1), now_ns
        pending = self._pending.get(reply.number)
        if pending is None or name not in pending.owed:
            return
        if reply.features is None:
            pending.not_sent(name, reply.refusal)
            self._fall_back(pending)
        elif len(reply.features.values) != len(pending.request.images):
            pending.not_sent(name, "answered another number of images")
            self._fall_back(pending)
        else:
            pending.replied(name, reply.features, now_ns, timed=reply.timed)

    def _fall_back(self, pending: Pending) -> None:
        """Send to boards that were spared what others cannot answer any more."""
        for name in pending.fallbacks():
            pending.spared.discard(name)
            line = self._lines[name]
            if line.connection is not None:
                self._send_to(name, line, line.connection, pending)

    def _take_connections(self) -> None:
        """Put what was connected, or why it could not be, in its place."""
        for name, found in self._reconnecting.results():
            line = self._lines[name]
            if isinstance(found, str):
                line.down = found
                continue
            line.connection, line.owes = found, 0
            self._selector.register(found, selectors.EVENT_READ, name)

    def _watch(self, line: _Line) -> None:
        if line.connection is not None:
            writing = selectors.EVENT_WRITE if line.connection.unsent else 0
            wanted = selectors.EVENT_READ | writing
            if self._selector.get_key(line.connection).events != wanted:
                self._selector.modify(line.connection, wanted, line.task.name)

    def _lose(self, name: str, why: str) -> None:
        """Give up a connection: nothing that it owes will come; connect anew."""
        line = self._lines[name]
        if line.connection is None:
            return
        self._selector.unregister(line.connection)
        line.connection.close()
        line.connection, line.owes, line.down = None, 0, why
        for pending in self._pending.values():
            if name in pending.owed:
                pending.not_sent(name, why)
                self._fall_back(pending)
        self._reconnecting.want(line.task)

    def _drop_stuck(self, now_ns: int) -> None:
        for name, line in self._lines.items():
            silent_s = (now_ns - line.heard_ns) / 1e9
            if line.owes and silent_s > max(_STUCK_S, self._joining.deadline_ms / 1e3):
                self._lose(name, f"said nothing for {silent_s:.0f} s")

    def _deadline_ns(self) -> int:
        first = min((pending.started_ns for pending in self._pending.values()), default=inf)
        return int(first + self._joining.deadline_ms * 1e6)

    def _is_finished(self, pending: Pending, now_ns: int) -> bool:
        late = now_ns - pending.started_ns >= self._joining.deadline_ms * 1e6
        return late or pending.enough(self._needed)

    def _wait_finished(self) -> list[int]:
        """Wait until some of what is pending has enough, or has waited long enough."""
        until_ns = 0
        while self._pending:
            self._turn(until_ns)
            now_ns = time.perf_counter_ns()
            if now_ns >= self._deadline_ns():
                # What has come is no late answer, however long nobody looked.
                self._take_in()
            finished = [n for n, each in self._pending.items() if self._is_finished(each, now_ns)]
            if finished:
                return finished
            until_ns = self._deadline_ns()
        return []

    def _answer(self, pending: Pending) -> Answer:
        logits = self._classifier.logits(
            len(pending.request.images), self._students, pending.features
        )
        enough = len(pending.features) >= self._needed
        why = "not waited for" if enough else f"not within {self._joining.deadline_ms:g} ms"
        return Answer(
            number=pending.request.number,
            logits=logits,
            missing=pending.missing(self._names, why),
            total_ms=(time.perf_counter_ns() - pending.started_ns) / 1e6,
            timings=tuple(pending.timings),
        )
