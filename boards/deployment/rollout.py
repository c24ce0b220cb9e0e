"""Rollout of a plan to its boards, over ssh.

Each is checked, given what it lacks, started, and asked whether it serves.  Boards are prepared at
once and switched one after the other, so that a host goes on with the rest.  One that fails does
not stop the others, and keeps the release that ran.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncssh

from boards.deployment import (
    BoardFacts,
    BoardOutcome,
    BoardProbe,
    BoardShare,
    BoardState,
    Payload,
    Release,
    board_shares,
    make_payload,
)
from boards.deployment.board_agent import READY
from boards.deployment.board_needs import board_faults, fetch_wheels, probe_board
from boards.host.connection import MAX_PAUSE_S, ConnectionLostError, separate_copies
from boards.host.frame_connection import certificate_fault
from boards.host.grpc_connection import GrpcChannel
from boards.protocol.address import BoardAddress, BoardAddresses, SshAccess
from boards.protocol.open_inference import message_class
from boards.tls.identity import Identity
from nonn_common import Progress, silent
from nonn_common.errors import BoardError, InputError, NonnError, StoppedError
from nonn_common.units import format_bytes
from nonn_core.export.bundle import MANIFEST, Manifest
from planner.plan_file.plan_document import PlanDocument

CONNECT_S = 15.0
START_S = 120.0
"""Time that a worker may take until it answers: a Raspberry Pi 3B takes half a minute."""
_ASK_S, _POLL_S = 3.0, 0.3
_AT_ONCE = 16
"""Boards that are prepared at the same time."""
_MODULES = ("board_service", "board_agent")
_LOAD = """
import sys, types
for name, text in {modules!r}:
    made = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), made.__dict__)
made.main()
"""


class AgentSession:
    """Requests to the agent of one board, and its answers."""

    def __init__(self, process: "asyncssh.SSHClientProcess[bytes]", **opening: str) -> None:
        self._process, self._opening = process, opening

    async def ask(self, do: str, *arguments: object) -> Any:
        """Answer to a request; raises InputError for what the board refuses."""
        self._write({"do": do, "with": arguments})
        return await self._answer()

    async def put(self, digest: str, mode: int, content: bytes) -> None:
        """Put a file into the board's store; raises InputError for what the board refuses."""
        self._write({"do": "put", "sha256": digest, "size": len(content), "mode": mode})
        self._process.stdin.write(content)
        await self._process.stdin.drain()
        await self._answer()

    def _write(self, request: dict[str, object]) -> None:
        line = json.dumps({**self._opening, **request})
        self._process.stdin.write(line.encode() + b"\n")

    async def _answer(self) -> Any:
        line = await self._process.stdout.readline()
        if not line:
            raise BoardError("the connection to the board was lost; deploy again goes on from here")
        answer = json.loads(line)
        if refused := answer.get("refused"):
            raise InputError(
                refused["what"],
                found=refused["found"] or None,
                allowed=refused["allowed"] or None,
                fix=refused["fix"] or None,
            )
        return answer["answer"]


@asynccontextmanager
async def connection(board: BoardAddress) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Connect to a board by ssh, with keys alone; raises BoardError with the next step."""
    access, host = board.ssh or SshAccess(), board.endpoint.host
    target = f"{access.user}@{host}" if access.user else host
    port = f"-p {access.port} " if access.port else ""
    try:
        connected = await asyncssh.connect(
            host,
            port=access.port or (),
            username=access.user or (),
            preferred_auth="publickey",
            password_auth=False,
            kbdint_auth=False,
            connect_timeout=CONNECT_S,
            login_timeout=CONNECT_S,
            keepalive_interval=10,
            keepalive_count_max=3,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise BoardError(
            f"ssh does not know this board's host key ({error.reason}); compare it once by hand: "
            f"ssh {port}{target}"
        ) from None
    except asyncssh.PermissionDenied:
        raise BoardError(
            f"ssh takes none of your keys; passwords are not asked for; give it one: "
            f"ssh-copy-id {port}{target}"
        ) from None
    except (OSError, asyncssh.Error, TimeoutError) as error:
        why = str(error) or f"no answer within {CONNECT_S:g} s"
        raise BoardError(f"cannot be reached by ssh at {host}: {why}; is it on?") from None
    async with connected:
        yield connected


@asynccontextmanager
async def agent_session(
    board: BoardAddress, connected: asyncssh.SSHClientConnection
) -> AsyncIterator[AgentSession]:
    """Run the agent on a board, as root where that was not forbidden; raises BoardError."""
    access = board.ssh or SshAccess()
    texts = [
        (f"boards.deployment.{name}", (files("boards.deployment") / f"{name}.py").read_text())
        for name in _MODULES
    ]
    code = _LOAD.format(modules=texts).encode()
    start = f"python3 -I -c 'import sys; exec(sys.stdin.buffer.read({len(code)}))'"
    root = f'if [ "$(id -u)" = 0 ]; then exec {start}; else exec sudo -n {start}; fi'
    process = await connected.create_process(root if access.sudo else start, encoding=None)
    try:
        process.stdin.write(code)
        line = b"-"
        # Before it comes what a shell says as it starts.
        while line and line.strip() != READY.encode():
            line = await process.stdout.readline()
        if not line:
            said = " ".join((await process.stderr.read()).decode(errors="replace").split())[-300:]
            raise BoardError(
                f"the agent did not start: {said or 'it said nothing'}"
                + ("; let sudo ask for no password, or say `ssh: {sudo: false}`" * access.sudo)
            )
        yield AgentSession(process, folder=access.folder, board=board.name)
    finally:
        process.close()


@dataclass
class Rollout:
    """One command on boards; `identity` is the host's, by which workers are asked."""

    identity: Identity
    dry_run: bool = False
    progress: Progress = silent
    warnings: list[str] = field(default_factory=list)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wheels: dict[str, asyncio.Task[tuple[Path, ...]]] = field(default_factory=dict)

    def of_plan(
        self, plan: PlanDocument, bundle: Path, addresses: BoardAddresses, keys: Path, where: str
    ) -> "Work":
        """Deployment of a plan's boards; raises InputError as `board_shares` does."""
        manifest = Manifest.read(bundle / MANIFEST)
        shares = board_shares(plan, manifest, addresses, keys, where)
        self.warnings += separate_copies(plan, manifest)
        return {each.task.name: partial(self.deploy, each, bundle) for each in shares}

    async def deploy(self, share: BoardShare, bundle: Path) -> BoardOutcome:
        """Bring one board's share, or what of it is missing there, and start it."""
        async with connection(share.board) as connected:
            probe = await probe_board(connected)
            async with agent_session(share.board, connected) as agent:
                facts = BoardFacts.check(await agent.ask("facts"), share.task.name)
                if faults := board_faults(share, probe, facts):
                    return _outcome(share.board, "failed", None, facts, reasons=faults)
                wheels = await self._fetched(probe, facts.glibc)
                payload = make_payload(share, bundle, probe, wheels)
                return await self._brought(share, payload, facts, agent)

    async def _brought(
        self, share: BoardShare, payload: Payload, facts: BoardFacts, agent: AgentSession
    ) -> BoardOutcome:
        release = payload.release
        missing, needed = release.missing(facts), release.room_bytes(facts)
        moved = tuple(one.path for one in missing)
        size = sum(one.size_bytes for one in missing)
        notes = share.notes(facts)

        def outcome(state: BoardState, **more: Any) -> BoardOutcome:
            shown = {"moved": moved, "moved_bytes": size, "notes": notes, **more}
            return _outcome(share.board, state, release, facts, **shown)

        same = not missing and facts.current is not None and facts.current.name == release.name
        if same and facts.running and not await self._fault(share.board, release.students):
            return outcome("unchanged")
        if needed > facts.free_bytes:
            reason = (
                f"room: found {format_bytes(facts.free_bytes)} free; allowed: at least "
                f"{format_bytes(needed)}; make room in {share.access.folder}, nothing was moved"
            )
            return outcome("failed", reasons=(reason,), moved=(), moved_bytes=0)
        if self.dry_run:
            return outcome("planned")
        for number, one in enumerate(missing):
            self.progress(f"files to {share.task.name}", number, len(missing))
            await agent.put(one.sha256, one.mode, payload.content(one.sha256))
        self.progress(f"unpacking on {share.task.name}", 0, 0)
        await agent.ask("prepare", release.model_dump(mode="json"))
        async with self._turn:
            fault = await self._started(share.board, release, agent)
            # Hosts connect again after such a pause, and need one board while the next restarts.
            await asyncio.sleep(0 if fault else MAX_PAUSE_S)
        if not fault:
            await agent.ask("prune")
            return outcome("deployed")
        before = facts.current
        if before is None or before.name == release.name:
            return outcome("failed", reasons=(fault,))
        again = await self._started(share.board, before, agent, facts.previous)
        kept = f"the release before, {before.name}, {again or 'runs again'}"
        return outcome("failed", reasons=(fault, kept))

    async def status(self, board: BoardAddress) -> BoardOutcome:
        """See what a board runs, and whether it answers."""
        async with connection(board) as connected, agent_session(board, connected) as agent:
            facts = BoardFacts.check(await agent.ask("facts"), board.name)
            if facts.current is None:
                return _outcome(board, "absent", None, facts)
            if not facts.running:
                said = await agent.ask("log")
                return _outcome(board, "stopped", facts.current, facts, reasons=_last(said))
            fault = await self._fault(board, facts.current.students)
            state: BoardState = "silent" if fault else "serving"
            return _outcome(board, state, facts.current, facts, reasons=(fault,) if fault else ())

    async def roll_back(self, board: BoardAddress) -> BoardOutcome:
        """Start the release before the one that runs."""
        async with connection(board) as connected, agent_session(board, connected) as agent:
            facts = BoardFacts.check(await agent.ask("facts"), board.name)
            if facts.previous is None or facts.previous == facts.current:
                reason = "there is no release before this one; deploy the plan that is wanted"
                return _outcome(board, "failed", facts.current, facts, reasons=(reason,))
            async with self._turn:
                fault = await self._started(board, facts.previous, agent)
            after = BoardFacts.check(await agent.ask("facts"), board.name)
            state: BoardState = "failed" if fault else "rolled back"
            return _outcome(board, state, after.current, after, reasons=(fault,) if fault else ())

    async def remove(self, board: BoardAddress) -> BoardOutcome:
        """End a board's worker and remove all that deployments made."""
        async with connection(board) as connected, agent_session(board, connected) as agent:
            facts = BoardFacts.check(await agent.ask("facts"), board.name)
            left = await agent.ask("remove")
            folder = (board.ssh or SshAccess()).folder
            notes = [f"{folder} keeps what is not ours: {', '.join(left)}"] if left else []
            notes += [] if facts.current else ["nothing was deployed there"]
            return _outcome(board, "removed", facts.current, None, notes=tuple(notes))

    async def _started(
        self, board: BoardAddress, release: Release, agent: AgentSession, *before: Release | None
    ) -> str:
        """Start a release and wait until it answers; gives the fault, or nothing.

        The release before it is to be `before`, if given, else the one that it replaces.
        """
        self.progress(f"starting {board.name}", 0, 0)
        names = [each.name if each else "" for each in before]
        await agent.ask("activate", release.name, *names)
        until_s = time.monotonic() + START_S
        while fault := await self._fault(board, release.students):
            ended = await agent.ask("ended")
            if ended or time.monotonic() > until_s:
                certificate = await asyncio.to_thread(
                    certificate_fault, board.endpoint, board.name, self.identity, _ASK_S
                )
                said = " / ".join(_last(await agent.ask("log")))
                if ended:
                    return f"the worker ends as it starts: {said or 'it says nothing'}"
                return (
                    f"does not answer within {START_S:g} s: {certificate or fault}; it said: "
                    f"{said or 'nothing'}; is port {board.endpoint.port} open for this machine?"
                )
            await asyncio.sleep(_POLL_S)
        return ""

    async def _fault(self, board: BoardAddress, students: Sequence[str]) -> str:
        return await asyncio.to_thread(worker_fault, board, students, self.identity)

    async def _fetched(self, probe: BoardProbe, glibc: str) -> tuple[Path, ...]:
        """Wheels of a kind of board, downloaded once for all of that kind."""
        key = f"{probe.model_dump_json()} {glibc}"
        if key not in self._wheels:
            work = asyncio.to_thread(fetch_wheels, probe, glibc)
            self._wheels[key] = asyncio.ensure_future(work)
        return await asyncio.shield(self._wheels[key])


def worker_fault(board: BoardAddress, students: Sequence[str], identity: Identity) -> str:
    """Reason why a worker's students are not ready; nothing where they are."""
    channel = GrpcChannel(board.endpoint, board.name, identity)
    try:
        for student in students:
            request = message_class("ModelReadyRequest")(name=student)
            if not channel.call("ModelReady", request, _ASK_S).ready:
                return f"{student} is not ready"
    except ConnectionLostError as error:
        return str(error)
    finally:
        channel.close()
    return ""


def _outcome(
    board: BoardAddress, state: BoardState, release: Release | None, facts: BoardFacts | None,
    **more: Any,
) -> BoardOutcome:  # fmt: skip
    before = facts and (facts.previous if state != "deployed" else facts.current)
    return BoardOutcome(
        board=board.name,
        state=state,
        students=release.students if release else (),
        release=release.name if release else None,
        previous=before.name if before else None,
        service=facts.service if facts else None,
        **more,
    )


def _last(said: str) -> tuple[str, ...]:
    return tuple(said.splitlines()[-3:])


Work = Mapping[str, Callable[[], Awaitable[BoardOutcome]]]


def run_on_boards(work: Work, progress: Progress) -> tuple[BoardOutcome, ...]:
    """Outcomes of work on each board, in this order; a failure is one of them.

    Raises StoppedError where a signal came.
    """
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    async def everything() -> tuple[BoardOutcome, ...]:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        def stop(number: int) -> None:
            came.append(number)
            if task is not None:
                task.cancel()

        for number in before:
            loop.add_signal_handler(number, stop, number)
        limit, done = asyncio.Semaphore(_AT_ONCE), 0

        async def one(name: str) -> BoardOutcome:
            nonlocal done
            async with limit:
                try:
                    return await work[name]()
                except (NonnError, OSError, asyncssh.Error) as error:
                    reason = str(error) or type(error).__name__
                    return BoardOutcome(board=name, state="failed", reasons=(reason,))
                finally:
                    done += 1
                    progress("boards", done, len(work))

        return tuple(await asyncio.gather(*map(one, work)))

    try:
        return asyncio.run(everything())
    except asyncio.CancelledError:
        cause = "Ctrl-C" if came[:1] == [signal.SIGINT] else "a signal"
        raise StoppedError(f"stopped by {cause}") from None
    finally:
        for number, handler in before.items():
            with suppress(TypeError):
                signal.signal(number, handler)
