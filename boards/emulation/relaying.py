"""Runs the relay of a fleet and tells it what to relay."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from boards.emulation.children import Child, Starter, kill, last_words
from boards.emulation.listening import listening_ports
from boards.emulation.networks import Place
from boards.emulation.relay import Order
from boards.emulation.ways import Ways
from boards.emulation.workers import EmulatedWorker
from profiles.errors import BoardError


class Relaying:
    """A relay process, for as long as the fleet lives."""

    def __init__(
        self,
        ways: Mapping[str, Ways],
        places: Mapping[str, Place],
        starter: Starter,
        log: Path,
        seed: int,
    ) -> None:
        self._ways = ways
        self._places = places
        self._log = log
        with log.open("ab") as errors:
            self._child: Child = starter.start(
                [sys.executable, "-m", "boards.emulation.relay", str(seed)], errors, told=True
            )

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child.poll() is None

    def relay(self, worker: EmulatedWorker) -> None:
        """Relay every port on which a worker listens now; raises BoardError if that fails."""
        place, ways = self._places[worker.board], self._ways[worker.board]
        ports = listening_ports(worker.pid)
        order = Order(worker.board, place.host, place.board, ports, ways.down, ways.up)
        child = self._child
        if child.stdin is None or child.stdout is None:
            raise BoardError("the relay has no pipes")
        try:
            child.stdin.write(order.encoded())
            child.stdin.flush()
            answer = child.stdout.readline()
        except OSError as error:
            raise BoardError(f"the relay is gone: {error}; {last_words(self._log)}") from None
        if answer != b"\n":
            said = answer.decode(errors="replace").strip() or last_words(self._log)
            raise BoardError(f"the relay cannot relay to {worker.board}: {said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kill(self._child)
