"""Boards that fail while a host asks them: killed, stopped, restarted, slow; with real processes.

Every answer is checked: it is what the students that are not named as missing give, exactly.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from made_bundle import make_bundle
from safetensors.numpy import load_file
from worker_processes import WorkerProcess, asking, keys_for, running

from boards.host.client import QuorumPolicy
from boards.protocol.address import Address
from nonn_core.export.bundle import Manifest

IMAGE = (1, 8, 8)
EIGHT = 8
BOARDS = [f"pi-{number}" for number in range(EIGHT)]
STUDENTS = [f"student-{number}" for number in range(EIGHT)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    manifest = make_bundle(folder / "bundle", filters=(2, 3, 4, 5, 2, 3, 4, 5), image=IMAGE)
    return folder / "bundle", manifest, keys_for(folder / "keys", *BOARDS)


@pytest.fixture(scope="module")
def oracle(made):
    """Say what the answer is when some students are missing."""
    bundle, _, _ = made
    sessions = [
        onnxruntime.InferenceSession(
            bundle / f"{name}.fp32.onnx", providers=["CPUExecutionProvider"]
        )
        for name in STUDENTS
    ]
    layer = load_file(bundle / "fc.safetensors")

    def logits(image, missing):
        features = [
            session.run(None, {"images": image})[0] * (name not in missing)
            for name, session in zip(STUDENTS, sessions, strict=True)
        ]
        return np.concatenate(features, axis=1) @ layer["weight"].T + layer["bias"]

    return logits


def picture(seed):
    return np.random.default_rng(seed).uniform(0, 255, (1, *IMAGE)).astype(np.float32)


class Stream:
    """Asks one image after the other, and checks each answer."""

    def __init__(self, client, oracle):
        self._client, self._oracle = client, oracle
        self._seeds = itertools.count()
        self.missing = []
        self.total_ms = []

    def ask(self, times=1):
        for seed in itertools.islice(self._seeds, times):
            answer = self._client.ask(picture(seed))
            right = self._oracle(picture(seed), answer.missing)
            assert answer.logits == pytest.approx(right, rel=1e-4, abs=1e-4)
            self.missing.append(set(answer.missing))
            self.total_ms.append(answer.total_ms)

    def until(self, missing, seconds=60):
        """Ask until exactly these students are missing."""
        end = time.monotonic() + seconds
        while not self.missing or self.missing[-1] != missing:
            assert time.monotonic() < end, f"still missing: {self.missing[-1:]}"
            self.ask()
            time.sleep(0.01)


def one_each(boards=EIGHT):
    return {BOARDS[number]: [STUDENTS[number]] for number in range(boards)}


def test_two_of_eight_are_killed_in_mid_stream_and_come_back(made, oracle):
    bundle, manifest, keys = made
    with (
        running(bundle, keys, one_each(), held=["student-0=1ms"]) as workers,
        asking(bundle, manifest, keys, workers.values()) as client,
    ):
        stream = Stream(client, oracle)
        stream.ask(20)
        assert stream.missing == [set()] * 20
        for number in (2, 5):
            threading.Timer(0.05, workers[BOARDS[number]].process.kill).start()
        stream.until({"student-2", "student-5"})
        # On the way there, nobody else was ever missing.
        assert set().union(*stream.missing) == {"student-2", "student-5"}
        stream.ask(20)
        assert stream.missing[-20:] == [{"student-2", "student-5"}] * 20
        for number in (2, 5):
            workers[BOARDS[number]].kill()
            workers[BOARDS[number]].start()
        stream.until(set())


@pytest.mark.parametrize("protocol", ["fastest", "standard"])
def test_any_worker_may_be_killed_while_it_computes(made, oracle, protocol):
    bundle, manifest, keys = made
    slow = [f"student-{number}=200ms" for number in range(3)]
    with (
        running(bundle, keys, one_each(3), held=slow) as workers,
        asking(bundle, manifest, keys, workers.values(), protocol=protocol) as client,
    ):
        for number in range(3):
            worker = workers[BOARDS[number]]
            threading.Timer(0.1, worker.process.kill).start()
            answer = client.ask(picture(number))
            absent = set(STUDENTS[3:])
            assert set(answer.missing) == {STUDENTS[number]}
            right = oracle(picture(number), absent | set(answer.missing))
            assert answer.logits == pytest.approx(right, rel=1e-4, abs=1e-4)
            worker.kill()
            worker.start()
            assert client.wait_connected(60)


@pytest.mark.parametrize("protocol", ["fastest", "standard"])
def test_a_worker_that_stops_answering_costs_a_deadline_and_not_more(made, oracle, protocol):
    bundle, manifest, keys = made
    policy = QuorumPolicy(deadline_ms=400)
    with (
        running(bundle, keys, one_each()) as workers,
        asking(bundle, manifest, keys, workers.values(), policy, protocol) as client,
    ):
        stream = Stream(client, oracle)
        stream.ask(3)
        stopped = workers[BOARDS[3]]
        stopped.send(signal.SIGSTOP)
        stream.until({"student-3"})
        first = len(stream.missing)
        stream.ask(20)
        assert stream.missing[first:] == [{"student-3"}] * 20
        # A board that said nothing for a deadline is not waited for again.
        assert sum(total_ms >= 400 for total_ms in stream.total_ms) == 1
        stopped.send(signal.SIGCONT)
        stream.until(set())


def test_k_of_n_does_not_wait_for_the_slowest(made, oracle):
    bundle, manifest, keys = made
    slow = ["student-1=5s"]
    policy = QuorumPolicy(quorum=2, deadline_ms=20_000)
    with (
        running(bundle, keys, one_each(3), held=slow) as workers,
        asking(bundle, manifest, keys, workers.values(), policy) as client,
    ):
        answer = client.ask(picture(0))
    assert dict(answer.missing) == {"student-1": "not waited for"}
    assert answer.total_ms < 5000
    right = oracle(picture(0), {"student-1", *STUDENTS[3:]})
    assert answer.logits == pytest.approx(right, rel=1e-4, abs=1e-4)


def test_replicas_mask_a_single_failure_completely(made, oracle):
    bundle, manifest, keys = made
    placement = {BOARDS[k]: [STUDENTS[k], STUDENTS[(k + 1) % 3]] for k in range(3)}
    with (
        running(bundle, keys, placement) as workers,
        asking(bundle, manifest, keys, workers.values()) as client,
    ):
        for number in range(3):
            worker = workers[BOARDS[number]]
            end = time.monotonic() + 60
            for seed in itertools.count():
                if seed == 10:
                    worker.process.kill()
                answer = client.ask(picture(seed))
                assert not answer.missing
                right = oracle(picture(seed), STUDENTS[3:])
                assert answer.logits == pytest.approx(right, rel=1e-4, abs=1e-4)
                # A process that is killed closes its connections a while later.
                if seed > 30 and BOARDS[number] in client.down:
                    break
                assert time.monotonic() < end
            worker.kill()
            worker.start()
            assert client.wait_connected(60)


def test_a_worker_with_keys_of_another_authority_is_missing_and_named(made, tmp_path, oracle):
    bundle, manifest, keys = made
    others = keys_for(tmp_path / "others", BOARDS[1])
    stranger = WorkerProcess(bundle, BOARDS[1], [STUDENTS[1]], others)
    try:
        with (
            running(bundle, keys, {BOARDS[0]: [STUDENTS[0]]}) as workers,
            asking(
                bundle, manifest, keys, [*workers.values(), stranger], connected=False
            ) as client,
        ):
            while BOARDS[0] in client.down or "not connected yet" in client.down.values():
                client.wait_connected(0.1)
            answer = client.ask(picture(0))
            assert set(answer.missing) == {STUDENTS[1]}
            assert BOARDS[1] in answer.missing[STUDENTS[1]]
            assert set(client.protocols) == {BOARDS[0]}
    finally:
        stranger.end()


def test_a_host_that_is_killed_is_followed_by_another(made, oracle):
    bundle, manifest, keys = made
    with running(bundle, keys, one_each(2)) as workers:
        code = (
            "import sys, numpy as np\n"
            "from test_host_faults import forever\n"
            "forever(sys.argv[1], sys.argv[2:])"
        )
        places = [str(worker.address) for worker in workers.values()]
        path = os.pathsep.join(sys.path)
        first = subprocess.Popen(
            [sys.executable, "-c", code, str(bundle.parent), *places],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path + os.pathsep + str(Path(__file__).parent)},
            text=True,
        )
        assert first.stdout.readline() == "answered\n"
        first.kill()
        first.communicate()
        with asking(bundle, manifest, keys, workers.values()) as client:
            answer = client.ask(picture(1))
    assert not answer.missing
    right = oracle(picture(1), STUDENTS[2:])
    assert answer.logits == pytest.approx(right, rel=1e-4, abs=1e-4)


def forever(folder, places):
    """Ask the first two boards without end; runs in a process of its own."""
    bundle = Path(folder) / "bundle"
    manifest = Manifest.read(bundle / "manifest.json")
    workers = [
        SimpleNamespace(name=BOARDS[k], students=[STUDENTS[k]], address=Address.parse(place, "t"))
        for k, place in enumerate(places)
    ]
    with asking(
        bundle, manifest, Path(folder) / "keys", workers, QuorumPolicy(in_flight=4)
    ) as client:
        for _ in client.stream(picture(seed) for seed in itertools.count()):
            sys.stdout.write("answered\n")
            sys.stdout.flush()


def test_a_worker_that_is_not_there_yet_is_found_when_it_comes(made, oracle):
    bundle, manifest, keys = made
    with running(bundle, keys, one_each(1)) as workers:
        late = WorkerProcess(bundle, BOARDS[1], [STUDENTS[1]], keys, "--queue", "2")
        late.kill()
        everybody = [*workers.values(), late]
        with asking(bundle, manifest, keys, everybody, connected=False) as client:
            while not client.protocols:
                client.wait_connected(0.1)
            assert set(client.ask(picture(0)).missing) == {STUDENTS[1]}
            late.start()
            assert client.wait_connected(60)
            assert not client.ask(picture(0)).missing
        late.end()


@pytest.mark.parametrize("protocol", ["fastest", "standard"])
def test_ten_thousand_requests_back_to_back_lose_nothing(made, oracle, protocol):
    """Nothing is lost, memory and open files stay where they were."""
    bundle, manifest, keys = made
    count = 10_000 if protocol == "fastest" else 2_000
    policy = QuorumPolicy(in_flight=8, deadline_ms=60_000)
    images = [picture(seed) for seed in range(16)]
    rights = [oracle(image, STUDENTS[2:]) for image in images]
    with (
        running(bundle, keys, one_each(2)) as workers,
        asking(bundle, manifest, keys, workers.values(), policy, protocol) as client,
    ):
        process = next(iter(workers.values())).process
        numbers, sizes = [], []
        for answer in client.stream(images[number % 16] for number in range(count)):
            assert not answer.missing
            right = rights[len(numbers) % 16]
            assert np.allclose(answer.logits, right, rtol=1e-4, atol=1e-4)
            numbers.append(answer.number)
            if len(numbers) in (count // 4, count):
                sizes.append((resident_kb(process.pid), open_files(process.pid)))
    assert numbers == list(range(1, count + 1))
    (early_kb, early_files), (late_kb, late_files) = sizes
    assert late_files <= early_files
    assert late_kb < early_kb + 4_000


def resident_kb(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def open_files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
