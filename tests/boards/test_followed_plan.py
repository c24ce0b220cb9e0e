"""A host that follows its plan: a board is killed, its student moves, and no image is lost."""

import itertools
import time
from functools import partial

import numpy as np
import onnxruntime
import pytest
from emulated_plans import bundle_of, made_fleet, made_plan
from safetensors.numpy import load_file
from worker_processes import keys_for, running

from boards.host.client import QuorumPolicy
from boards.host.session import following, open_client
from boards.protocol.address import BoardAddresses
from boards.tls.identity import Identity
from nonn_core.export.bundle import MANIFEST, Manifest
from nonn_plan.api import read_plan
from planner.replan import replan

IMAGE = (3, 8, 8)
LINK = {"name": "wire", "bits_per_s": 1e9}


class Hosting:
    """Students 0 and 1 on b0 and b1, and a worker on b2 that has student 1, too."""

    def __init__(self, folder):
        self.plan = made_plan(made_fleet([LINK] * 3), boards=[("b0",), ("b1",)], image="3x8x8")
        self.plan_file, self.boards_file = folder / "plan.json", folder / "boards.yaml"
        self.plan.write(self.plan_file)
        self.bundle = bundle_of(self.plan, folder / "bundle")
        self.keys = keys_for(folder / "keys", "b0", "b1", "b2")
        self.told = []
        self.sent, self.right = [], []
        manifest = Manifest.read(self.bundle / MANIFEST)
        self._runs = [
            onnxruntime.InferenceSession(self.bundle / one.files[0].file) for one in manifest.models
        ]
        self._names = [one.name for one in manifest.models]
        self._fc = load_file(self.bundle / "fc.safetensors")

    def write_boards(self, workers, *names):
        """Say where these boards are."""
        rows = [{"name": name, "address": str(workers[name].address)} for name in names]
        BoardAddresses.check({"boards": rows}, "test").write(self.boards_file)

    def opened(self):
        """The plan as it lies there, and a client that connects to its boards."""
        plan, addresses = read_plan(self.plan_file), BoardAddresses.read(self.boards_file)
        identity, policy = Identity.read(self.keys / "host"), QuorumPolicy(in_flight=3)
        return plan, open_client(plan, self.bundle, addresses, identity, policy, "boards.yaml")

    def tell(self, sentence, refused):
        self.told.append((refused, sentence))

    def images(self):
        """Images without end, each another one."""
        for seed in itertools.count():
            self.sent.append(seed)
            yield self.picture(seed)
            time.sleep(0.002)

    @staticmethod
    def picture(seed):
        return np.random.default_rng(seed).uniform(0, 255, (1, *IMAGE)).astype(np.float32)

    def check(self, answer):
        """Compare an answer with what its students give of the image whose turn it is."""
        pixels = {"images": self.picture(self.sent[len(self.right)])}
        parts = [
            run.run(None, pixels)[0] * (name not in answer.missing)
            for name, run in zip(self._names, self._runs, strict=True)
        ]
        logits = np.concatenate(parts, axis=1) @ self._fc["weight"].T + self._fc["bias"]
        assert answer.logits == pytest.approx(logits, rel=1e-4, abs=1e-4)
        self.right.append(set(answer.missing))


@pytest.fixture
def hosting(tmp_path):
    return Hosting(tmp_path)


def until(hosting, answers, found, seconds=60):
    """Answer images until something is so."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, hosting.told
        hosting.check(next(answers))


def test_a_student_moves_while_images_go_and_none_is_lost(hosting):
    placement = {"b0": ["student-0"], "b1": ["student-1"], "b2": ["student-1"]}
    with running(hosting.bundle, hosting.keys, placement) as workers:
        hosting.write_boards(workers, "b0", "b1")
        files = [hosting.plan_file, hosting.boards_file]
        with following(hosting.opened, files, hosting.tell) as followed:
            assert followed.client.wait_connected(60)
            answers = followed.stream(hosting.images())
            until(hosting, answers, lambda: len(hosting.right) == 10)
            assert hosting.right == [set()] * 10
            workers["b1"].process.kill()
            until(hosting, answers, lambda: hosting.right[-1] == {"student-1"})
            # What is no plan, and one whose board has no address, change nothing.
            hosting.plan_file.write_text("{")
            until(hosting, answers, lambda: len(hosting.told) == 1)
            found = replan(hosting.plan, ["b1"])
            assert [one.boards for one in found.plan.students] == [("b0",), ("b2",)]
            hosting.plan_file.unlink()
            found.plan.write(hosting.plan_file)
            until(hosting, answers, lambda: len(hosting.told) == 2)
            assert [refused for refused, _ in hosting.told] == [True, True]
            assert all("the one before goes on" in said for _, said in hosting.told)
            assert "b2" in hosting.told[1][1]
            assert followed.plan == hosting.plan
            hosting.write_boards(workers, "b0", "b2")
            until(hosting, answers, lambda: len(hosting.told) == 3)
            assert hosting.told[2] == (False, "images go by the new plan now, to b0, b2")
            assert followed.plan == found.plan
            whole = len(hosting.right)
            until(hosting, answers, lambda: len(hosting.right) == whole + 20)
            answer = next(answers)
            assert sorted(one.board for one in answer.timings) == ["b0", "b2"]
            hosting.check(answer)
            assert hosting.right[whole + 3 :] == [set()] * (len(hosting.right) - whole - 3)
            assert len(hosting.sent) - len(hosting.right) <= 3  # those that are under way


def test_a_plan_whose_boards_are_not_there_is_refused(hosting, monkeypatch):
    monkeypatch.setattr("boards.host.session.REACH_S", 0.5)
    with running(hosting.bundle, hosting.keys, {"b0": ["student-0", "student-1"]}) as workers:
        hosting.write_boards(workers, "b0")
        alone = replan(hosting.plan, ["b1", "b2"]).plan
        alone.write(hosting.plan_file)
        with following(hosting.opened, [hosting.plan_file], hosting.tell) as followed:
            assert followed.client.wait_connected(60)
            answers = followed.stream(hosting.images())
            until(hosting, answers, lambda: len(hosting.right) == 3)
            address = workers["b0"].address
            rows = [{"name": "b2", "address": f"127.0.0.1:{address.port + 7}"}]
            BoardAddresses.check({"boards": rows}, "test").write(hosting.boards_file)
            replan(hosting.plan, ["b0", "b1"]).plan.write(hosting.plan_file)
            until(hosting, answers, lambda: len(hosting.told) == 1)
            refused, said = hosting.told[0]
            assert refused
            assert said.startswith("no board of the new plan is there, and the one before goes on:")
            until(hosting, answers, partial(len, hosting.right[10:]))
        assert hosting.right == [set()] * len(hosting.right)
