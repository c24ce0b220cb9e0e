"""Connecting to a board: by frames where its worker advertises them, else by the standard calls.

Where the port of frames cannot be reached, the standard calls are slower, but right.
"""

from contextlib import ExitStack, suppress

from boards.credentials.identity import Identity
from boards.host.calls import Caller
from boards.host.connection import Connection, ConnectionLostError
from boards.host.framed import FramesUnreachableError, connect_frames
from boards.host.standard import StandardConnection
from boards.host.task import Task
from boards.protocol.frames import advertised_port
from boards.protocol.messages import message

CONNECT_S = 5.0


def connect(task: Task, identity: Identity | None) -> Connection:
    """Connect to a board whose students are ready; raises ConnectionLostError."""
    place = task.board.place
    caller = Caller(place, task.name, identity)
    with ExitStack() as stack:
        stack.callback(caller.close)
        server = caller.call("ServerMetadata", message("ServerMetadataRequest")(), CONNECT_S)
        port = advertised_port(server.extensions)
        if port is not None and task.board.protocol == "fastest":
            context = None if identity is None else identity.client_context()
            with suppress(FramesUnreachableError):
                return connect_frames(place.with_port(port), task, context, CONNECT_S)
        for model in task.students:
            _require_ready(caller, task, model)
        connection = StandardConnection(caller, task)
        # What is open stays open.
        stack.pop_all()
    return connection


def _require_ready(caller: Caller, task: Task, model: str) -> None:
    request = message("ModelReadyRequest")(name=model)
    if not caller.call("ModelReady", request, CONNECT_S).ready:
        raise ConnectionLostError(f"{task.name} has no {model}, or is not ready yet")
