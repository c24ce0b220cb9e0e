"""The inference client: it sends images to all boards, joins their answers, and reconnects.

One thread does all of it and never blocks on a board: it waits on all connections at once.  What
connects to a board that is gone runs beside it and hands over the new connection.
"""

import selectors
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from boards.host.connection import (
    BoardTask,
    Connection,
    ConnectionLostError,
    Reconnector,
    Reply,
    Request,
    all_students,
)
from boards.host.inference import Answer, FeatureClassifier, PendingRequest
from boards.protocol.frames import Values

_UNRESPONSIVE_S = 10.0
"""A board with outstanding answers that is silent for so long, or a deadline, is reconnected."""
_CHECK_INTERVAL_NS = 100_000_000
"""Interval of the check for such boards."""
_MAX_OUTSTANDING = 256


@dataclass(frozen=True, slots=True)
class QuorumPolicy:
    """Limits of waiting: for `quorum` students (None: all), at most `deadline_ms`."""

    quorum: int | None = None
    deadline_ms: float = 5_000.0
    in_flight: int = 1
    """Requests that are on their way at once."""


@dataclass(slots=True)
class _ConnectionState:
    """A board's connection, and the number of its outstanding answers."""

    task: BoardTask
    connection: Connection | None = None
    outstanding: int = 0
    last_heard_ns: int = 0
    down: str = "not connected yet"


class InferenceClient:
    """A NoNN on its boards, asked from one thread."""

    def __init__(
        self,
        tasks: Sequence[BoardTask],
        classifier: FeatureClassifier,
        reconnector: Reconnector,
        policy: QuorumPolicy,
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._states = {task.name: _ConnectionState(task) for task in tasks}
        self._boards = tuple(self._states.values())
        self._students = all_students(tasks)
        self._names = tuple(student.name for student in self._students)
        self._classifier = classifier
        self._reconnector = reconnector
        self._policy = policy
        self._quorum = min(policy.quorum or len(self._students), len(self._students))
        self._pending: dict[int, PendingRequest] = {}
        self._next, self._next_check_ns = 1, 0
        self._gone_since_ns = time.perf_counter_ns()
        """Last moment from which on no board could be asked."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(reconnector, selectors.EVENT_READ)
        for task in tasks:
            reconnector.request(task)

    @property
    def protocols(self) -> dict[str, str]:
        """Protocol of each connected board."""
        return {n: each.connection.protocol for n, each in self._states.items() if each.connection}

    @property
    def fallbacks(self) -> dict[str, str]:
        """Boards that are asked by the slower protocol against their wish, and why."""
        open_ = ((name, each.connection) for name, each in self._states.items())
        return {name: each.fallback for name, each in open_ if each and each.fallback}

    @property
    def down(self) -> dict[str, str]:
        """Boards that are not connected, and why."""
        return {n: each.down for n, each in self._states.items() if each.connection is None}

    def wait_connected(self, seconds: float) -> bool:
        """Wait until every board is connected; whether they are."""
        end_ns = time.perf_counter_ns() + int(seconds * 1e9)
        while self.down and time.perf_counter_ns() < end_ns:
            self._poll(end_ns)
        return not self.down

    def ask(self, images: Values) -> Answer:
        """Return the answer to one request of `(n, ...)` images."""
        (answer,) = self.stream([images])
        return answer

    def stream(self, requests: Iterable[Values]) -> Iterator[Answer]:
        """Yield an answer to each request, in order, with several in flight at once.

        Where requests come slowly, an answer waits until the next one has come if more than one may
        be on its way.
        """
        waiting = iter(requests)
        order, done = list[int](), dict[int, Answer]()
        request: Values | None = None
        more = True
        while more or order:
            while more and len(self._pending) < self._policy.in_flight:
                request = next(waiting, None) if request is None else request
                more = request is not None
                if request is None or not self._paced():
                    break
                order.append(self._send(request))
                request = None
            for number in self._wait_finished():
                done[number] = self._answer(self._pending.pop(number))
            while order and order[0] in done:
                yield done.pop(order.pop(0))

    def close(self) -> None:
        """Close all connections."""
        self._reconnector.close()
        for state in self._boards:
            if state.connection is not None:
                self._selector.unregister(state.connection)
                state.connection.close()
                state.connection = None
        self._selector.close()

    def _paced(self) -> bool:
        """Whether the next image may be taken up; waits for boards where nothing is pending.

        While as many students as are needed can be asked, nobody is waited for.  Else a board that
        is late gets one deadline more; where nobody at all can be asked, whoever speaks or comes
        back is waited for as long.  A fleet that is gone for good is not.
        """
        deadline_ns = int(self._policy.deadline_ms * 1e6)
        end_ns = time.perf_counter_ns() + deadline_ns
        while True:
            # Events since the last request: boards that came back, answered, or are gone.
            self._drain_events()
            if not any(each.outstanding or not each.connection for each in self._boards):
                return True
            now_ns = time.perf_counter_ns()
            silent_ns = self._silent_ns(now_ns)
            up = self._reached()
            able = {n for n in up - silent_ns.keys() if self._tasks[n].sender not in silent_ns}
            if len({each for name in able for each in self._tasks[name].students}) >= self._quorum:
                return True
            late = any(quiet_ns < 2 * deadline_ns for quiet_ns in silent_ns.values())
            gone_s = 0.0 if up else (now_ns - self._gone_since_ns) / 1e9
            if gone_s > self._patience_s or (able and not late) or now_ns >= end_ns:
                return True
            if self._pending:
                return False
            self._poll(end_ns)

    def _reached(self) -> set[str]:
        """Connected boards that get images, or maps of a connected board of G0."""
        up = self.protocols.keys()
        return {name for name in up if self._tasks[name].sender in ("", *up)}

    def _send(self, images: Values) -> int:
        """Send to every board that is there, in the plan's order; return the request's number."""
        number, self._next = self._next, self._next + 1
        pending = PendingRequest(Request(number, images), time.perf_counter_ns(), self._tasks)
        self._pending[number] = pending
        unresponsive, lagging = self._skipped_boards()
        for name, state in self._states.items():
            if state.connection is None:
                pending.mark_failed(name, state.down)
            elif name in unresponsive or name in lagging:
                pending.mark_failed(name, f"{state.outstanding} answers are outstanding")
            elif state.task.sender and state.task.sender not in pending.outstanding:
                # Its board of G0 was before it, and has failed.
                pending.mark_failed(name, pending.failures[state.task.sender])
            else:
                self._send_to(name, state, state.connection, pending)
        pending.standby |= lagging
        self._fall_back(pending)
        return number

    def _send_to(
        self, name: str, state: _ConnectionState, connection: Connection, pending: PendingRequest
    ) -> None:
        if not state.outstanding:
            # From when on it could have said something: not later, or its silence would seem
            # shorter than the deadline of this request.  A request that falls back to it is older.
            state.last_heard_ns = max(state.last_heard_ns, pending.started_ns)
        try:
            connection.send(pending.request)
        except ConnectionLostError as error:
            pending.mark_failed(name, str(error))
            self._disconnect(name, str(error))
            return
        state.outstanding += 1
        pending.outstanding[name] = time.perf_counter_ns()
        if connection.unsent:
            self._watch(state)

    def _skipped_boards(self) -> tuple[set[str], set[str]]:
        """Boards that get no image now: those unresponsive, and those lagging.

        Unresponsive ones were silent for a whole deadline, and are not waited for again; lagging
        ones catch up while other boards have all of their students.
        """
        if not any(state.outstanding for state in self._boards):
            return set(), set()
        connected = {n: state for n, state in self._states.items() if state.connection is not None}
        unresponsive = set(self._silent_ns(time.perf_counter_ns()))
        unresponsive |= {n for n, each in connected.items() if each.outstanding > _MAX_OUTSTANDING}
        lagging = {
            n for n, state in connected.items() if state.outstanding > self._policy.in_flight + 2
        }
        running = Counter(
            student
            for name in connected.keys() - unresponsive - lagging
            for student in self._tasks[name].students
        )
        replicated = {n for n in lagging if all(running[each] for each in self._tasks[n].students)}
        return unresponsive, replicated - unresponsive

    def _silent_ns(self, now_ns: int) -> dict[str, int]:
        """Connected boards that owe an answer and were silent for a deadline: how long."""
        return {
            name: now_ns - state.last_heard_ns
            for name, state in self._states.items()
            if state.connection is not None
            and self._owes(state)
            and now_ns - state.last_heard_ns >= self._policy.deadline_ms * 1e6
        }

    def _owes(self, state: _ConnectionState) -> bool:
        """Whether a board has to answer an image, or maps that were sent to it."""
        sender = self._states.get(state.task.sender)
        return state.outstanding > 0 and (sender is None or not sender.outstanding)

    @property
    def _patience_s(self) -> float:
        """Time after which a silent board is connected anew, or a gone fleet lost."""
        return max(_UNRESPONSIVE_S, self._policy.deadline_ms / 1e3)

    def _drain_events(self) -> None:
        """Process all events so far, at most as many as boards have outstanding."""
        for _ in range(_MAX_OUTSTANDING):
            if not self._poll(0):
                return

    def _poll(self, until_ns: int) -> bool:
        """Wait for events until `until_ns` and process them; return whether there were any.

        Of a connection with many answers it takes one or a few at a time.
        """
        now_ns = time.perf_counter_ns()
        seconds = max(0.0, (until_ns - now_ns) / 1e9)
        events = self._selector.select(min(seconds, 1.0))
        for key, mask in events:
            if key.data is None:
                self._take_connections()
            elif self._states[key.data].connection is key.fileobj:
                self._handle_event(key.data, mask)
        if now_ns >= self._next_check_ns:
            self._next_check_ns = now_ns + _CHECK_INTERVAL_NS
            self._disconnect_unresponsive(now_ns)
        return bool(events)

    def _handle_event(self, name: str, mask: int) -> None:
        """Send waiting bytes to a board, and take its replies."""
        state = self._states[name]
        connection = state.connection
        if connection is None:
            return
        try:
            if mask & selectors.EVENT_WRITE:
                connection.flush()
                self._watch(state)
            if mask & selectors.EVENT_READ:
                for reply in connection.replies():
                    self._take_reply(name, state, reply)
        except ConnectionLostError as error:
            self._disconnect(name, str(error))

    def _take_reply(self, name: str, state: _ConnectionState, reply: Reply) -> None:
        """Take a reply; one to a request that has been answered without it is late."""
        now_ns = time.perf_counter_ns()
        state.outstanding, state.last_heard_ns = max(0, state.outstanding - 1), now_ns
        pending = self._pending.get(reply.number)
        if state.task.receivers:
            refused = [each.name for each in state.task.receivers if reply.features is None]
            for board in (*reply.unsent, *refused):
                self._states[board].outstanding = max(0, self._states[board].outstanding - 1)
        if pending is None or name not in pending.outstanding:
            return
        for board, why in reply.unsent.items():
            pending.mark_failed(board, why)
        fault = pending.fault_of(reply, now_ns)
        if fault or reply.features is None:
            pending.mark_failed(name, fault)
            self._fall_back(pending)
        else:
            pending.add_reply(name, reply.features, now_ns, timed=reply.timed)

    def _fall_back(self, pending: PendingRequest) -> None:
        """Send to standby boards what others cannot answer any more."""
        for name in pending.fallbacks():
            pending.standby.discard(name)
            state = self._states[name]
            if state.connection is not None:
                self._send_to(name, state, state.connection, pending)

    def _take_connections(self) -> None:
        """Take new connections, or the reasons why there are none."""
        for name, found in self._reconnector.results():
            state = self._states[name]
            if isinstance(found, str):
                state.down = found
            else:
                state.connection, state.outstanding = found, 0
                self._selector.register(found, selectors.EVENT_READ, name)

    def _watch(self, state: _ConnectionState) -> None:
        if state.connection is not None:
            writing = selectors.EVENT_WRITE if state.connection.unsent else 0
            wanted = selectors.EVENT_READ | writing
            if self._selector.get_key(state.connection).events != wanted:
                self._selector.modify(state.connection, wanted, state.task.name)

    def _disconnect(self, name: str, reason: str) -> None:
        """Give up a connection and its outstanding answers; reconnect."""
        state = self._states[name]
        if state.connection is None:
            return
        self._selector.unregister(state.connection)
        state.connection.close()
        state.connection, state.outstanding, state.down = None, 0, reason
        for fed in state.task.receivers:
            self._states[fed.name].outstanding = 0
        if not self._reached():
            self._gone_since_ns = time.perf_counter_ns()
        for pending in self._pending.values():
            if name in pending.outstanding:
                pending.mark_failed(name, reason)
                self._fall_back(pending)
        self._reconnector.request(state.task)

    def _disconnect_unresponsive(self, now_ns: int) -> None:
        for name, state in self._states.items():
            quiet_s = (now_ns - state.last_heard_ns) / 1e9
            if self._owes(state) and quiet_s > self._patience_s:
                self._disconnect(name, f"said nothing for {quiet_s:.0f} s")

    def _deadline_ns(self) -> int:
        first = min((pending.started_ns for pending in self._pending.values()), default=inf)
        return int(first + self._policy.deadline_ms * 1e6)

    def _is_finished(self, pending: PendingRequest, now_ns: int) -> bool:
        late = now_ns - pending.started_ns >= self._policy.deadline_ms * 1e6
        return late or pending.is_complete(self._quorum)

    def _wait_finished(self) -> list[int]:
        """Wait until some pending requests are complete or late; return their numbers."""
        until_ns, deadline_ns = 0, self._deadline_ns() if self._pending else 0
        while self._pending:
            self._poll(until_ns)
            now_ns = time.perf_counter_ns()
            if now_ns >= deadline_ns:
                # What has come is no late answer, however long nobody looked.
                self._drain_events()
            finished = [n for n, each in self._pending.items() if self._is_finished(each, now_ns)]
            if finished:
                return finished
            until_ns = deadline_ns
        return []

    def _answer(self, pending: PendingRequest) -> Answer:
        logits = self._classifier.logits(
            len(pending.request.images), self._students, pending.features
        )
        is_complete = len(pending.features) >= self._quorum
        reason = "not waited for" if is_complete else f"not within {self._policy.deadline_ms:g} ms"
        return Answer(
            number=pending.request.number,
            logits=logits,
            missing=pending.missing(self._names, reason),
            total_ms=(time.perf_counter_ns() - pending.started_ns) / 1e6,
            timings=tuple(pending.timings),
        )
