"""A board behind a slow link: it costs a deadline, is named, and its answers stay apart."""

from contextlib import closing

import numpy as np
import onnxruntime
import pytest
from emulated_plans import bundle_of, made_fleet, made_plan
from safetensors.numpy import load_file

from boards.emulation.emulated_fleet import emulated
from boards.emulation.namespace import LOOPBACK_ONLY
from boards.host.client import QuorumPolicy
from boards.host.session import open_client
from boards.tls.identity import Identity

FAST = {"name": "fast", "bits_per_s": 1e9}
SLOW = {"name": "slow", "bits_per_s": 1e8, "latency_ms": 200.0}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    plan = made_plan(made_fleet([FAST, FAST, SLOW], compute_ms=1.0), image="1x8x8")
    bundle = bundle_of(plan, folder / "bundle")
    with emulated(plan, bundle, capabilities=LOOPBACK_ONLY) as running:
        yield plan, bundle, running


def answers(fleet, policy, count):
    plan, bundle, running = fleet
    identity = Identity.read(running.keys / "host")
    with closing(
        open_client(plan, bundle, running.addresses, identity, policy, "boards.yaml")
    ) as client:
        assert client.wait_connected(60), client.down
        return [client.ask(picture(seed)) for seed in range(count)]


def picture(seed):
    return np.random.default_rng(seed).uniform(0, 255, (1, 1, 8, 8)).astype(np.float32)


def right(fleet, seed, missing):
    """Return the logits by onnxruntime and the FC layer, missing features being zero."""
    plan, bundle, _ = fleet
    features = []
    for student in plan.students:
        session = onnxruntime.InferenceSession(
            bundle / f"{student.name}.fp32.onnx", providers=["CPUExecutionProvider"]
        )
        (values,) = session.run(None, {"images": picture(seed)})
        features.append(values * (student.name not in missing))
    layer = load_file(bundle / "fc.safetensors")
    return np.concatenate(features, axis=1) @ layer["weight"].T + layer["bias"]


def test_with_time_the_slow_board_is_waited_for(fleet):
    for seed, answer in enumerate(answers(fleet, QuorumPolicy(deadline_ms=30_000), 3)):
        assert not answer.missing
        # There and back.
        assert answer.total_ms >= 400
        assert answer.logits == pytest.approx(right(fleet, seed, ()), rel=1e-4, abs=1e-4)


def test_without_time_it_is_named_and_a_late_answer_is_no_other_image_s(fleet):
    found = answers(fleet, QuorumPolicy(deadline_ms=150), 12)
    slow = fleet[0].students[-1].name
    for seed, answer in enumerate(found):
        assert slow in answer.missing
        wanted = right(fleet, seed, answer.missing)
        assert answer.logits == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_k_of_n_goes_on_without_it(fleet):
    for answer in answers(fleet, QuorumPolicy(quorum=2, deadline_ms=30_000), 3):
        assert set(answer.missing) == {fleet[0].students[-1].name}
