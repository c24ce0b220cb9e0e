"""Spread cells over local cores, or over the workers of a Dask cluster; the same work in both."""

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from planner.exploration.cell import Asked, Found, versions
from profiles.errors import InputError, NonnError

_CONNECT_S = 10
_WORKERS_S = 30


def found_locally(cells: Sequence[Asked], jobs: int) -> Iterator[Found]:
    """Yield what is found, as it is found, on this machine's cores; -1 uses all of them."""
    from joblib import Parallel, delayed

    if jobs == 1 or len(cells) < 2:
        for cell in cells:
            yield cell.find()
        return
    workers = Parallel(n_jobs=min(jobs, len(cells)) or 1, return_as="generator_unordered")
    home = os.getpid()
    yield from workers(delayed(_find_away)(cell, home) for cell in cells)


def found_on_cluster(cells: Sequence[Asked], address: str) -> Iterator[Found]:
    """Yield what is found, as it is found, by the workers of the Dask scheduler at `address`.

    Raises InputError where there is no such scheduler or dask is not installed, and NonnError
    where its workers are not as this machine is.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise InputError(
            "--dask needs packages that are not installed", fix="pip install 'nonn-plan[dask]'"
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no Dask scheduler answers: {detail}", where="--dask", found=address
        ) from None
    with client:
        _check_workers(client)
        futures = client.map(_find, cells, pure=False)
        for future in as_completed(futures):
            yield future.result()


def _check_workers(client: Any) -> None:
    """Refuse workers that would answer otherwise than this machine."""
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError:
        raise NonnError(
            "--dask: the scheduler has no workers; start some and run this again"
        ) from None
    try:
        there = client.run(versions)
    except Exception as error:  # whatever a machine of somebody else lacks, or raises
        raise NonnError(f"--dask: a worker cannot run nonn-plan: {error!r}") from None
    for worker, found in there.items():
        if found != versions():
            raise NonnError(f"--dask: worker {worker} has {found}, and this machine {versions()}")


def _find(cell: Asked) -> Found:
    return cell.find()


def _find_away(cell: Asked, home: int) -> Found:
    """Solve in a worker process, which leaves Ctrl-C to the one that started it."""
    if os.getpid() != home:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return cell.find()
