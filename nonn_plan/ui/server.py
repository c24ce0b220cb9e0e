"""The server of the page, for this machine alone, and its warm solver processes.

Who may call: the address has a random token, the Host is this machine's loopback at the server's
port, and what changes anything or costs time comes from the page itself (Origin).  A question is
solved in a process of its own, which is killed where the page goes away or asks anew; one more
process stands ready, so that the next question does not wait for a start.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nonn_common.errors import InputError, NonnError
from nonn_plan.ui.question import Question, library, matching_devices
from nonn_plan.ui.source import Source, open_source

LOOPBACK = "127.0.0.1"
MOST_BYTES = 32 * 2**20
"""Bytes of a request, at most: a partition of a large teacher with its links."""
MOST_SOURCES = 50
"""Files that stay opened; the oldest ones go."""
MOST_READY = 2
"""Processes that stand ready, at most: the one that was used last is asked next."""
LONGEST_LINE = 256 * 2**20
"""Bytes of a message of a solver process, at most: a plan holds its partition."""

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "txt": "text/plain"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer: nothing is loaded from elsewhere, and nobody else may load it."""


class Gatekeeper:
    """Middleware that answers nobody but the page: Host, token and Origin are checked."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; add the headers that keep the page apart."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        refused = self._refusal(Request(scope))
        await (refused or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Refusal of a request that is not the page's, None where it is."""
        hosts = _own_hosts(request.scope["server"][1])
        if request.headers.get("host") not in hosts:
            return _refused(403, "this server answers to its own address alone")
        token = request.url.path.split("/", 2)[1]
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            return _refused(
                404, "no such page: the address that `nonn-plan ui` printed has a token"
            )
        if request.method in ("GET", "HEAD"):
            return None
        if request.headers.get("origin") not in {f"http://{host}" for host in hosts}:
            return _refused(403, "a page of another origin may not ask")
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _refused(415, "a question is application/json")
        return None


def _own_hosts(port: int) -> tuple[str, ...]:
    return f"{LOOPBACK}:{port}", f"localhost:{port}"


def _refused(status: int, message: str) -> JSONResponse:
    return JSONResponse({"kind": "error", "message": message}, status)


class SolverProcess:
    """A process that answers questions one after the other, until it is killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.idle = True

    @classmethod
    async def start(cls) -> "SolverProcess":
        """Start a process; it warms itself up while nobody waits."""
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "nonn_plan.ui.answer"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LONGEST_LINE,
                # Ctrl-C is for the server, which ends its processes.
                start_new_session=True,
            )
        )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.returncode is None

    async def ask(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the messages that answer a request, the last one `end`."""
        question, answers = self._process.stdin, self._process.stdout
        if question is None or answers is None:
            raise NonnError("a solver process has no streams")
        self.idle = False
        with suppress(ConnectionError):
            question.write(json.dumps(request).encode() + b"\n")
            await question.drain()
        while line := await answers.readline():
            message = json.loads(line)
            if message["kind"] == "ready":
                continue
            if message["kind"] == "end":
                self.idle = True
                return
            yield message
        message = "the solver process ended; it may have had too little memory"
        yield {"kind": "error", "message": message}

    async def kill(self) -> None:
        """End the process, whatever it does, and wait until it is gone."""
        if self.alive:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()


class SolverPool:
    """Solver processes: those at work, and one that stands ready."""

    def __init__(self) -> None:
        self._ready: list[SolverProcess] = []
        self._every: set[SolverProcess] = set()
        self._turns = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._refilling: asyncio.Task[None] | None = None

    async def answer(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the messages that answer a request.

        Where whoever asked stops listening, the process that works for him is killed.
        """
        async with self._turns:
            alive = [one for one in self._ready if one.alive]
            self._ready = alive[:-1]
            process = alive[-1] if alive else await self._start()
            self.refill()
            try:
                async for message in process.ask(request):
                    yield message
            finally:
                if process.idle:  # the one that was used last is asked next
                    self._ready.append(process)
                if not process.idle or len(self._ready) > MOST_READY:
                    needless = process if not process.idle else self._ready.pop(0)
                    self._every.discard(needless)
                    await asyncio.shield(needless.kill())

    def refill(self) -> None:
        """Let a process stand ready, started while others work."""
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.ensure_future(self._refill())

    async def _refill(self) -> None:
        if not self._ready:
            self._ready.append(await self._start())

    async def _start(self) -> SolverProcess:
        process = await SolverProcess.start()
        self._every.add(process)
        return process

    async def close(self) -> None:
        """End all processes."""
        if self._refilling is not None:
            await asyncio.wait([self._refilling])
        for process in tuple(self._every):
            await process.kill()
        self._every.clear()


class AnswerStream:
    """Response of a solver's messages, a line of JSON each, while the page listens."""

    def __init__(self, messages: AsyncIterator[dict[str, Any]]) -> None:
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send messages as they come; end them where nobody listens any more."""
        del scope
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for message in self._messages:
                line = json.dumps(message).encode() + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
        finally:
            await self._messages.aclose()  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True)
class PageServer:
    """Routes of the page, the files that it opened, and its solver processes."""

    token: str
    sources: dict[str, tuple[Source, object]]
    pool: SolverPool

    @classmethod
    def with_file(cls, plain: object | None, name: str) -> "PageServer":
        """Server of a page that opens with this content, or with none; raises InputError."""
        server = cls(secrets.token_urlsafe(24), {}, SolverPool())
        if plain is not None:
            server.add(plain, name)
        return server

    def add(self, plain: object, name: str) -> Source:
        """Open plain content; raises InputError."""
        content = json.dumps(plain, sort_keys=True)
        source = sha256(f"{name}\n{content}".encode()).hexdigest()[:16]
        if source not in self.sources:
            while len(self.sources) >= MOST_SOURCES:
                self.sources.pop(next(iter(self.sources)))
            self.sources[source] = open_source(plain, name, source), json.loads(content)
        return self.sources[source][0]

    def app(self) -> Starlette:
        """The server as an application."""
        at = f"/{self.token}"
        routes: tuple[tuple[str, Callable[[Request], Any], str], ...] = (
            ("/", self._page, "GET"),
            ("/asset/{name}", self._asset, "GET"),
            ("/library", self._library, "GET"),
            ("/devices", self._devices, "GET"),
            ("/opened", self._opened, "GET"),
            ("/opened/{source}", self._opened, "GET"),
            ("/partition/{source}", self._partition, "GET"),
            ("/open", self._open, "POST"),
            ("/answer", self._answer, "POST"),
        )
        return Starlette(
            routes=[Route(at + path, do, methods=[method]) for path, do, method in routes],
            middleware=[Middleware(Gatekeeper, token=self.token)],
            lifespan=self._life,
        )

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        del app
        self.pool.refill()
        try:
            yield
        finally:
            await self.pool.close()

    async def _page(self, request: Request) -> Response:
        del request
        return _shipped("page.html")

    async def _asset(self, request: Request) -> Response:
        return _shipped(request.path_params["name"])

    async def _library(self, request: Request) -> Response:
        """Library that the page offers."""
        del request
        return JSONResponse(library())

    async def _devices(self, request: Request) -> Response:
        """Devices of the library with these words."""
        search = request.query_params.get("search", "")
        return JSONResponse(await asyncio.to_thread(matching_devices, search))

    async def _opened(self, request: Request) -> Response:
        """The file that the page was opened with, or the one with this id."""
        asked = request.path_params.get("source", next(iter(self.sources), ""))
        if asked not in self.sources:
            return JSONResponse({"kind": "nothing"}, 200 if not asked else 404)
        return JSONResponse(self.sources[asked][0].shown())

    async def _partition(self, request: Request) -> Response:
        source = self._source(request.path_params["source"])
        return JSONResponse(source.partition.model_dump(mode="json"))

    async def _open(self, request: Request) -> Response:
        """Open the content of a file that the page read."""
        try:
            asked = await _json(request)
            name = str(asked.get("name", "")) or "partition.json"
            return JSONResponse(self.add(asked.get("content"), name).shown())
        except NonnError as error:
            return _refused(400, str(error))

    async def _answer(self, request: Request) -> Response | AnswerStream:
        """Answer a question, message by message; with `rest` also what takes longer."""
        try:
            asked = await _json(request)
            question = Question.check(asked.get("question"), where="the page's question")
            source = self._source(question.source)
        except NonnError as error:
            return _refused(400, str(error))
        content = self.sources[source.id][1]
        opened = {"id": source.id, "name": source.name, "content": content}
        plain = question.model_dump(mode="json")
        work = {"source": opened, "question": plain, "rest": asked.get("rest") is True}
        return AnswerStream(self.pool.answer(work))

    def _source(self, source: str) -> Source:
        if source not in self.sources:
            raise InputError("this file is no longer open", found=source, fix="open it again")
        return self.sources[source][0]


async def _json(request: Request) -> dict[str, Any]:
    """Mapping that a request holds; raises InputError."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise InputError("is too large", found=len(body), allowed=f"{MOST_BYTES} bytes")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError("is no mapping of JSON", found=type(found).__name__)
    return found


def _shipped(name: str) -> Response:
    """File of the page, as the wheel ships it."""
    folder = files("nonn_plan.ui") / "assets"
    if name not in {one.name for one in folder.iterdir()}:
        return _refused(404, "no such file")
    return Response((folder / name).read_bytes(), media_type=_KINDS[name.rpartition(".")[2]])


def serve(server: PageServer, announce: Callable[[str], None]) -> None:
    """Serve on a free port of the loopback until a signal comes, once announced."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind((LOOPBACK, 0))
        listening.listen()  # whoever is quicker than the server waits
        announce(f"http://{LOOPBACK}:{listening.getsockname()[1]}/{server.token}/")
        config = uvicorn.Config(
            server.app(), log_level="warning", access_log=False, timeout_graceful_shutdown=1
        )
        uvicorn.Server(config).run(sockets=[listening])
