"""Sessions of the host: clients for a plan, which may change, and images.

Images come from a data set, from a folder of pictures, or from stdin.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np

from boards.host.client import InferenceClient, QuorumPolicy
from boards.host.connection import Reconnector, board_tasks, working_boards
from boards.host.grpc_connection import connect
from boards.host.inference import Answer, FeatureClassifier
from boards.protocol.address import BoardAddresses
from boards.protocol.frames import Values
from boards.tls.identity import Identity
from nonn_common import Progress, silent
from nonn_common.errors import InputError, NonnError
from nonn_core.data.files import read_bytes
from nonn_core.data.picture import PictureReading, PictureTally, is_hidden, picture_suffixes
from nonn_core.data.sources import read_source
from nonn_core.export.bundle import MANIFEST, Manifest
from nonn_core.networks.blueprint import ImageShape
from planner.plan_file.plan_document import PlanDocument


@dataclass(frozen=True, slots=True)
class HostImage:
    """One image: title, pixels as `(1, C, H, W)`, and class if known."""

    title: str
    pixels: Values
    label: int | None = None


@dataclass(frozen=True, slots=True)
class HostImages:
    """Images to send, and sentences on those that were left out or changed.

    `warnings` counts the pictures that have been taken so far.
    """

    images: Iterable[HostImage]
    warnings: Callable[[], tuple[str, ...]] = tuple


def data_set_images(
    manifest: Manifest, source: str | None, progress: Progress = silent
) -> HostImages:
    """Test images of a data set; without a source, of the bundle's own.

    Pictures are read as the bundle's were.  Raises InputError where it is not there, or its images
    or classes are not the bundle's.
    """
    source = source or manifest.data
    found = read_source(source, progress, _reading(manifest))
    _require_shape(found.test.pixels.shape[1:], manifest, source)
    if found.class_names != manifest.class_names:
        raise InputError(
            "the data set has other classes than the bundle",
            where=source,
            found=", ".join(found.class_names[:10]),
            allowed=", ".join(manifest.class_names[:10]),
        )
    images = [
        HostImage(f"test {number}", pixels[None].astype(np.float32), int(label))
        for number, (pixels, label) in enumerate(zip(*found.test, strict=True))
    ]
    return HostImages(images, lambda: found.warnings)


def folder_images(manifest: Manifest, folder: Path) -> HostImages:
    """Pictures of a folder in the order of their names, read as the bundle's were.

    Raises InputError.
    """
    if not folder.is_dir():
        raise InputError("no such folder of pictures", where=str(folder))
    tally, paths = PictureTally(), []
    for path in sorted(folder.iterdir()):
        name = path.relative_to(folder)
        if path.suffix.lower() in picture_suffixes() and not is_hidden(name):
            paths.append(path)
        elif not is_hidden(name):
            tally.left_out.append(name)
    if not paths:
        raise InputError(
            "holds no pictures",
            where=str(folder),
            allowed=f"files ending in {', '.join(picture_suffixes())}",
            fix="; ".join(tally.omissions(str(folder))),
        )
    reading = _reading(manifest)
    images = (HostImage(path.name, _picture(path, manifest, reading, tally)) for path in paths)
    return HostImages(images, lambda: tally.warnings(str(folder), reading))


def stream_images(manifest: Manifest, stream: BinaryIO) -> Iterator[HostImage]:
    """Yield images that come as raw bytes, channel after channel, one after the other.

    Raises InputError where the last one is cut short.
    """
    shape = _shape(manifest)
    size = shape[0] * shape[1] * shape[2]
    number = 0
    while content := stream.read(size):
        if len(content) < size:
            raise InputError(
                f"image {number} is cut short",
                where="stdin",
                found=len(content),
                allowed=f"{size} bytes for each image of {manifest.image}",
            )
        pixels = np.frombuffer(content, dtype=np.uint8).astype(np.float32)
        yield HostImage(f"stdin {number}", pixels.reshape(1, *shape))
        number += 1


def _reading(manifest: Manifest) -> PictureReading:
    """How a picture becomes an image that the models of a bundle read."""
    return manifest.pictures or PictureReading.of_source("", manifest.image)


def _picture(
    path: Path, manifest: Manifest, reading: PictureReading, tally: PictureTally
) -> Values:
    planes = reading.decode(str(path), read_bytes(path), tally)
    _require_shape(planes.shape, manifest, str(path))
    return planes[None].astype(np.float32)


def _shape(manifest: Manifest) -> tuple[int, int, int]:
    image = ImageShape.parse(manifest.image)
    return image.channels, image.height, image.width


def _require_shape(found: tuple[int, ...], manifest: Manifest, where: str) -> None:
    if found != _shape(manifest):
        raise InputError(
            "images of another shape than the students read",
            where=where,
            found="x".join(map(str, found)),
            allowed=manifest.image,
            fix="train with `--image-size` for photos of any size",
        )


def open_client(
    plan: PlanDocument,
    bundle: Path,
    addresses: BoardAddresses,
    identity: Identity | None,
    policy: QuorumPolicy,
    where: str,
) -> InferenceClient:
    """Begin to connect to the boards of a plan; without an identity only on loopback.

    `where` names the file of addresses.  Boards that are not there are tried again and again; the
    caller decides how long to wait for them, and closes.  Raises InputError.
    """
    if identity is None:
        _require_loopback(addresses, where)
    else:
        identity.require("host")
    manifest = Manifest.read(bundle / MANIFEST)
    asked = board_tasks(plan, manifest, addresses, where)
    classifier = FeatureClassifier(bundle, manifest)
    return InferenceClient(
        asked, classifier, Reconnector(partial(connect, identity=identity)), policy
    )


LOOK_S = 0.25
"""Pause between two looks at followed files, which are taken when they rest so long."""
REACH_S = 10.0
"""Time for the boards of a new plan to connect; those that are there then do."""

PlanOpening = Callable[[], tuple[PlanDocument, InferenceClient]]
"""Reads a plan and begins to connect to its boards; raises NonnError."""


class FollowedPlan:
    """A client for whatever plan some files hold, changed between images.

    Images under way end on the connections of the plan that they were sent by; later ones go by
    the new plan, once its boards are there.  A new plan that is broken, or of which no board can be
    reached, is refused, and the one before goes on.  `tell` hears of each, and whether it is
    refused, from another thread.
    """

    def __init__(
        self, opening: PlanOpening, files: Sequence[Path], tell: Callable[[str, bool], None]
    ) -> None:
        self._opening, self._files, self._tell = opening, files, tell
        self._known = self._content()
        self.plan, self.client = opening()
        self._next: tuple[PlanDocument, InferenceClient] | None = None
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._watch = threading.Thread(target=self._run, name="follow the plan", daemon=True)
        if files:
            self._watch.start()

    def stream(self, requests: Iterable[Values]) -> Iterator[Answer]:
        """Yield an answer to each request, by the plan that it was sent by.

        Answers are in the order of requests.
        """
        waiting = iter(requests)
        while True:
            yield from self.client.stream(self._until_changed(waiting))
            with self._lock:
                changed, self._next = self._next, None
            if changed is None:
                return
            self.client.close()
            self.plan, self.client = changed
            boards = ", ".join(working_boards(self.plan))
            self._tell(f"images go by the new plan now, to {boards}", False)

    def close(self) -> None:
        """Close all connections."""
        self._ended.set()
        if self._files:
            self._watch.join()
        if self._next is not None:
            self._next[1].close()
        self.client.close()

    def _until_changed(self, waiting: Iterator[Values]) -> Iterator[Values]:
        """Take requests as long as no new plan is ready."""
        while self._next is None:
            request = next(waiting, None)
            if request is None:
                self._ended.set()
                return
            yield request

    def _run(self) -> None:
        """Look for changes, and open each new plan, until the end."""
        before = self._known
        while not self._ended.wait(LOOK_S):
            found = self._content()
            if found not in (self._known, None) and found == before:
                self._known = found
                self._take()
            before = found

    def _content(self) -> bytes | None:
        """Digest of the files; None while one of them is not there."""
        try:
            return sha256(b"".join(sha256(f.read_bytes()).digest() for f in self._files)).digest()
        except OSError:
            return None

    def _take(self) -> None:
        """Connect to a new plan's boards; hand it over where any is there."""
        try:
            plan, client = self._opening()
        except (NonnError, OSError) as error:
            self._tell(f"the new plan is refused, and the one before goes on: {error}", True)
            return
        end_s = time.monotonic() + REACH_S
        while not client.wait_connected(LOOK_S) and time.monotonic() < end_s:
            if self._ended.is_set():
                break
        absent = "; ".join(f"{board}: {why}" for board, why in client.down.items())
        if self._ended.is_set() or not client.protocols:
            client.close()
        if self._ended.is_set():
            return
        if not client.protocols:
            self._tell(
                f"no board of the new plan is there, and the one before goes on: {absent}", True
            )
            return
        if absent:
            self._tell(f"the new plan goes on without {absent}", True)
        with self._lock:
            older, self._next = self._next, (plan, client)
        if older is not None:
            older[1].close()


@contextmanager
def following(
    opening: PlanOpening, files: Sequence[Path], tell: Callable[[str, bool], None]
) -> Iterator[FollowedPlan]:
    """A followed plan, closed in the end; without files it stays as it is."""
    followed = FollowedPlan(opening, files, tell)
    try:
        yield followed
    finally:
        followed.close()


def _require_loopback(addresses: BoardAddresses, where: str) -> None:
    for board in addresses.boards:
        if not board.endpoint.loopback:
            raise InputError(
                "plain text is for loopback only",
                where=f"{where}, board {board.name}",
                found=board.address,
                allowed="127.0.0.1:PORT",
                fix="make keys with `nonn-plan keys init` and name them with --keys",
            )
