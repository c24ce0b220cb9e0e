"""One suite for both protocols: whatever carries the image, a host gets the same answers."""

import ctypes
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from made_bundle import make_bundle
from safetensors.numpy import load_file
from worker_processes import WorkerProcess, asking, free_port, keys_for, running, task_of

from boards.host.client import QuorumPolicy
from boards.host.connection import ConnectionLostError
from boards.host.grpc_connection import connect
from boards.tls.identity import Identity

IMAGE = (2, 8, 8)
LIBC = ctypes.CDLL(None)
PROTOCOLS = {"frames": "fastest", "standard": "standard"}
PLACEMENT = {"pi-1": ["student-0", "student-2"], "pi-2": ["student-1"]}

protocols = pytest.mark.parametrize("wire", PROTOCOLS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conformance")
    manifest = make_bundle(folder / "bundle", filters=(5, 3, 4), image=IMAGE)
    return folder / "bundle", manifest, keys_for(folder / "keys", "pi-1", "pi-2")


@pytest.fixture(scope="module")
def workers(made):
    bundle, _, keys = made
    with running(bundle, keys, PLACEMENT) as found:
        yield list(found.values())


def pictures(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, *IMAGE)).astype(np.float32)


def expected(bundle, images, without=()):
    """Return the logits by onnxruntime and the FC layer, with some students' features zero."""
    features = []
    for name in ("student-0", "student-1", "student-2"):
        session = onnxruntime.InferenceSession(
            bundle / f"{name}.fp32.onnx", providers=["CPUExecutionProvider"]
        )
        (values,) = session.run(None, {"images": images})
        features.append(values * (name not in without))
    layer = load_file(bundle / "fc.safetensors")
    return np.concatenate(features, axis=1) @ layer["weight"].T + layer["bias"]


@protocols
@pytest.mark.parametrize("count", [1, 3])
def test_logits_are_those_of_the_models(made, workers, wire, count):
    bundle, manifest, keys = made
    images = pictures(count)
    with asking(bundle, manifest, keys, workers, protocol=PROTOCOLS[wire]) as client:
        answer = client.ask(images)
        assert client.protocols == {"pi-1": wire, "pi-2": wire}
    assert answer.logits == pytest.approx(expected(bundle, images), rel=1e-5, abs=1e-5)
    assert not answer.missing
    assert {timing.board for timing in answer.timings} == set(PLACEMENT)
    for timing in answer.timings:
        assert 0 < timing.sent_ms < timing.replied_ms < answer.total_ms
        assert 0 < timing.computed_ms < timing.replied_ms


@protocols
def test_many_images_on_their_way_at_once_come_back_in_order(made, workers, wire):
    bundle, manifest, keys = made
    images = [pictures(1, seed) for seed in range(60)]
    policy = QuorumPolicy(in_flight=8)
    with asking(bundle, manifest, keys, workers, policy, PROTOCOLS[wire]) as client:
        answers = list(client.stream(images))
    assert [answer.number for answer in answers] == list(range(1, 61))
    for image, answer in zip(images, answers, strict=True):
        assert answer.logits == pytest.approx(expected(bundle, image), rel=1e-5, abs=1e-5)


@protocols
def test_no_answer_is_late_because_the_next_image_was(made, workers, wire):
    bundle, manifest, keys = made
    policy = QuorumPolicy(in_flight=8, deadline_ms=400)

    def slowly():
        for number in range(12):
            # The worker has answered the ones before it long ago.
            time.sleep(0.8 if number == 7 else 0.0)
            yield pictures(1, number)

    with asking(bundle, manifest, keys, workers, policy, PROTOCOLS[wire]) as client:
        answers = list(client.stream(slowly()))
    assert [dict(answer.missing) for answer in answers] == [{}] * 12


@protocols
def test_images_that_a_worker_refuses_leave_its_students_missing(made, workers, wire):
    bundle, manifest, keys = made
    bad = pictures(1)
    bad[0, 0, 0, 0] = np.inf
    with asking(bundle, manifest, keys, workers, protocol=PROTOCOLS[wire]) as client:
        refused, fine = client.ask(bad), client.ask(pictures(1))
        assert not client.down
    assert set(refused.missing) == {"student-0", "student-1", "student-2"}
    assert all("INVALID_ARGUMENT" in why for why in refused.missing.values())
    assert not fine.missing


@protocols
def test_two_hosts_are_answered_side_by_side(made, workers, wire):
    bundle, manifest, keys = made
    wrong = []

    def ask(seed):
        with asking(bundle, manifest, keys, workers, protocol=PROTOCOLS[wire]) as client:
            for step in range(20):
                images = pictures(1, 100 * seed + step)
                found = client.ask(images).logits
                if not np.allclose(found, expected(bundle, images), rtol=1e-4, atol=1e-5):
                    wrong.append((seed, step))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@protocols
def test_a_student_that_is_not_there_is_no_connection(made, workers, wire):
    _, manifest, keys = made
    identity = Identity.read(keys / "host")
    task = task_of(workers[1], manifest, PROTOCOLS[wire])
    other = type(task)(task.board, (manifest.models[0],))
    with pytest.raises(ConnectionLostError, match="student-0"):
        connect(other, identity)


@protocols
def test_a_board_with_another_name_is_no_connection(made, workers, wire):
    _, manifest, keys = made
    task = task_of(workers[0], manifest, PROTOCOLS[wire])
    renamed = type(task)(task.board.model_copy(update={"name": "pi-2"}), task.models)
    with pytest.raises(ConnectionLostError):
        connect(renamed, Identity.read(keys / "host"))


@protocols
def test_a_full_queue_refuses_and_says_so(made, wire):
    bundle, manifest, keys = made
    slow = ("--queue", "1", "--at-least", "student-1=300ms")
    with running(bundle, keys, {"pi-2": ["student-1"]}, *slow) as found:
        workers = list(found.values())
        answers = []

        def ask():
            with asking(bundle, manifest, keys, workers, protocol=PROTOCOLS[wire]) as client:
                answers.append(client.ask(pictures(1)))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    refused = [answer for answer in answers if answer.missing]
    assert 1 <= len(refused) < 4
    assert all("RESOURCE_EXHAUSTED" in why for a in refused for why in a.missing.values())


@protocols
def test_a_slower_board_holds_its_answers(made, wire):
    bundle, manifest, keys = made
    slow = ("--at-least", "student-1=120ms")
    with (
        running(bundle, keys, {"pi-2": ["student-1"]}, *slow) as found,
        asking(bundle, manifest, keys, found.values(), protocol=PROTOCOLS[wire]) as client,
    ):
        answer = client.ask(pictures(1))
    assert answer.timings[0].computed_ms >= 120
    assert answer.total_ms >= 120


@protocols
def test_a_worker_that_is_told_to_end_answers_what_is_inside(made, wire):
    bundle, manifest, keys = made
    worker = WorkerProcess(bundle, "pi-2", ["student-1"], keys, "--at-least", "student-1=1s")
    with asking(bundle, manifest, keys, [worker], protocol=PROTOCOLS[wire]) as client:
        ended = []
        threading.Timer(0.4, lambda: ended.append(worker.end())).start()
        answer = client.ask(pictures(1))
        assert not answer.missing
        end = time.monotonic() + 30
        while not ended and time.monotonic() < end:
            client.ask(pictures(1))
            time.sleep(0.05)
        assert ended == [0]
        assert set(client.ask(pictures(1)).missing) == {"student-1"}


@pytest.mark.skipif(not hasattr(LIBC, "tgkill"), reason="this C library has no tgkill")
def test_a_signal_that_another_thread_gets_ends_a_worker_as_well(made):
    bundle, _, keys = made
    worker = WorkerProcess(bundle, "pi-2", ["student-1"], keys)
    pid = worker.process.pid
    other = max(int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir())
    assert other != pid
    assert LIBC.tgkill(pid, other, signal.SIGTERM) == 0
    assert worker.process.wait(30) == 0
    worker.process.communicate()


def test_metrics_count_what_was_asked(made):
    bundle, manifest, keys = made
    place = f"127.0.0.1:{free_port()}"
    with running(bundle, keys, {"pi-2": ["student-1"]}, "--metrics", place) as found:
        workers = list(found.values())
        for protocol, times in (("fastest", 3), ("standard", 2)):
            with asking(bundle, manifest, keys, workers, protocol=protocol) as client:
                for seed in range(times):
                    client.ask(pictures(1, seed))
        text = urllib.request.urlopen(f"http://{place}/metrics").read().decode()
    assert 'nonn_requests_total{outcome="OK",protocol="frames"} 3.0' in text
    assert 'nonn_requests_total{outcome="OK",protocol="standard"} 2.0' in text
    assert 'nonn_computed_seconds_count{student="student-1"} 5.0' in text
    assert "nonn_requests_inside 0.0" in text


def test_a_worker_loads_neither_torch_nor_a_solver():
    code = (
        "import sys, boards.worker.server, boards.worker.model_runtime\n"
        "wrong = {'torch', 'ortools', 'scipy', 'pandas', 'matplotlib', 'onnx'} & set(sys.modules)\n"
        "sys.exit(', '.join(wrong) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
