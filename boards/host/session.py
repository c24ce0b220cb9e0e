"""A NoNN on its boards: from a plan, a bundle and addresses to a fan-out that is connected."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from boards.credentials.identity import Identity
from boards.host.addresses import BoardAddresses
from boards.host.classifier import Classifier
from boards.host.connecting import connect
from boards.host.fan_out import FanOut, Joining
from boards.host.reconnecting import Reconnecting
from boards.host.task import tasks
from nonn_core.bundle import MANIFEST, Manifest
from planner.plan import PlanDocument
from profiles.errors import InputError


@contextmanager
def connected(
    plan: PlanDocument,
    bundle: Path,
    addresses: BoardAddresses,
    identity: Identity | None,
    joining: Joining,
    where: str,
) -> Iterator[FanOut]:
    """Connect to the boards of a plan; without an identity in plain text, on this machine only.

    `where` names the file of addresses.  Boards that are not there are tried again and again; the
    caller decides how long to wait for them.  Raises InputError.
    """
    if identity is None:
        _require_loopback(addresses, where)
    else:
        identity.require("host")
    manifest = Manifest.read(bundle / MANIFEST)
    asked = tasks(plan, manifest, addresses, where)
    classifier = Classifier(bundle, manifest)
    fan_out = FanOut(asked, classifier, Reconnecting(partial(connect, identity=identity)), joining)
    try:
        yield fan_out
    finally:
        fan_out.close()


def _require_loopback(addresses: BoardAddresses, where: str) -> None:
    for board in addresses.boards:
        if not board.place.loopback:
            raise InputError(
                "plain text is for loopback only",
                where=f"{where}, board {board.name}",
                found=board.address,
                allowed="127.0.0.1:PORT",
                fix="make keys with `nonn-plan keys init` and name them with --keys",
            )
