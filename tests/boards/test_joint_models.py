"""Students of one board as one model: one session, one run for an image, the same answers."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from made_bundle import make_bundle
from worker_processes import WorkerProcess, asking, keys_for, running

from boards.host.client import QuorumPolicy
from boards.protocol.frames import RequestRefused
from boards.worker.model_runtime import load_models
from boards.worker.student_pool import StudentPool
from nonn_common.errors import InputError
from nonn_core.export.bundle import MANIFEST, Manifest

IMAGE = (2, 8, 8)
JOINT = "students-of-pi-1"
PLACEMENT = {"pi-1": ["student-0", "student-2"], "pi-2": ["student-1"]}
PROTOCOLS = {"frames": "fastest", "standard": "standard"}

protocols = pytest.mark.parametrize("wire", PROTOCOLS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle with a model of two of its three students, which differ in width."""
    folder = tmp_path_factory.mktemp("joint")
    joint = {JOINT: (0, 2)}
    manifest = make_bundle(folder / "bundle", filters=(5, 3, 4), image=IMAGE, joint=joint)
    return folder / "bundle", manifest, keys_for(folder / "keys", "pi-1", "pi-2")


def pictures(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, *IMAGE)).astype(np.float32)


def alone(bundle, name, images):
    """A student's vector by the model that it has for itself."""
    session = onnxruntime.InferenceSession(
        bundle / f"{name}.fp32.onnx", providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": images})[0]


def weights_of(path):
    return [tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer]


def test_a_board_loads_one_model_for_the_students_that_share_a_g0(made):
    bundle, _, _ = made
    (both,) = load_models(bundle, ["student-2", "student-0"])
    assert both.name == JOINT
    assert [student.name for student in both.students] == ["student-0", "student-2"]
    assert sorted(weights_of(bundle / f"{JOINT}.fp32.onnx")) == [
        (4, 2, 3, 3),
        (4, 4, 1, 1),
        (5, 4, 1, 1),
    ]
    # With a student that is not of the model, and without one that is.
    assert [m.name for m in load_models(bundle, [f"student-{n}" for n in (1, 0, 2)])] == [
        "student-1",
        JOINT,
    ]
    assert [m.name for m in load_models(bundle, ["student-0", "student-1"])] == [
        "student-0",
        "student-1",
    ]


def test_features_are_those_of_the_separate_models_in_the_order_asked_for(made):
    bundle, _, _ = made
    images = pictures(3)
    pool = StudentPool(load_models(bundle, ["student-0", "student-1", "student-2"]))
    for names in (["student-2", "student-0"], ["student-2"], ["student-1", "student-0"]):
        expected = np.concatenate([alone(bundle, name, images) for name in names], axis=1)
        found = pool.answer(names, images).values
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    with pytest.raises(RequestRefused, match="here are: students-of-pi-1, student-0, student-2"):
        pool.answer(["student-7"], images)


def test_one_run_for_an_image_however_many_students_are_asked_for(made):
    bundle, _, _ = made
    (both,) = load_models(bundle, ["student-0", "student-2"])
    runs, seen = [], []

    class Counting:
        name, reads, answers = both.name, both.reads, both.answers
        students, engine = both.students, both.engine

        def answer(self, images):
            runs.append(len(images))
            return both.answer(images)

    class Observer:
        def observe(self, student, *times_ns):
            assert all(each >= 0 for each in times_ns)
            seen.append(student)

    pool = StudentPool([Counting()], at_least_ms={"student-2": 30.0}, observer=Observer())
    answer = pool.answer(["student-0", "student-2"], pictures(2))
    assert runs == [2]
    assert answer.values.shape == (2, 9)
    assert answer.computed_ns >= 60e6
    assert seen == ["student-0", "student-2"]


def test_files_of_single_students_need_not_be_on_the_board(made, tmp_path):
    bundle, _, _ = made
    for name in (MANIFEST, f"{JOINT}.fp32.onnx"):
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    assert [m.name for m in load_models(tmp_path, ["student-0", "student-2"])] == [JOINT]
    with pytest.raises(InputError, match=r"student-0\.fp32\.onnx"):
        load_models(tmp_path, ["student-0"])


@protocols
def test_logits_over_real_workers_are_those_of_separate_models(made, wire):
    bundle, manifest, keys = made
    images = pictures(3)
    protocol = PROTOCOLS[wire]
    plain = Manifest.check(
        {
            **manifest.model_dump(mode="json"),
            "models": [m.model_dump(mode="json") for m in manifest.models if not m.members],
        },
        "this test",
    )
    separate = made[0].parent / f"separate-{wire}"
    separate.mkdir()
    for one in plain.files():
        (separate / one.file).write_bytes((bundle / one.file).read_bytes())
    plain.write(separate / MANIFEST)
    answers = {}
    for folder, described in ((bundle, manifest), (separate, plain)):
        with (
            running(folder, keys, PLACEMENT) as workers,
            asking(folder, described, keys, workers.values(), protocol=protocol) as client,
        ):
            answers[folder] = client.ask(images)
            assert client.protocols == dict.fromkeys(PLACEMENT, wire)
    joint, apart = answers[bundle], answers[separate]
    assert not joint.missing and not apart.missing
    assert joint.labels == apart.labels
    assert joint.logits == pytest.approx(apart.logits, rel=1e-6, abs=1e-6)


def test_a_board_with_the_separate_models_alone_answers_a_host_that_knows_the_joint_one(made):
    """A server of the standard protocol, such as Triton, may have been given either."""
    bundle, manifest, keys = made
    worker = WorkerProcess(bundle, "pi-1", ["student-0"], keys)
    other = WorkerProcess(bundle, "pi-2", ["student-1", "student-2"], keys)
    try:
        images = pictures(1)
        for wire in PROTOCOLS.values():
            with asking(bundle, manifest, keys, [worker, other], protocol=wire) as client:
                answer = client.ask(images)
            assert not answer.missing
    finally:
        worker.end()
        other.end()


def test_a_board_that_is_gone_misses_all_students_of_its_model(made):
    bundle, manifest, keys = made
    with running(bundle, keys, PLACEMENT) as workers:
        policy = QuorumPolicy(deadline_ms=2000)
        with asking(bundle, manifest, keys, workers.values(), policy) as client:
            assert not client.ask(pictures(1)).missing
            workers["pi-1"].kill()
            assert set(client.ask(pictures(1)).missing) == {"student-0", "student-2"}
            workers["pi-1"].start()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"members": ["student-0", "student-9"]}, "its members are students, each named once"),
        ({"members": ["student-0", "student-0"]}, "its members are students, each named once"),
        ({"members": []}, "a joint model has members"),
        ({"members": ["student-0", "student-1"]}, "answers its members' 8 values"),
    ],
)
def test_a_manifest_whose_joint_model_is_none_is_refused(made, change, told):
    content = json.loads((made[0] / MANIFEST).read_text())
    content["models"][-1] |= change
    with pytest.raises(InputError, match=told):
        Manifest.check(content, "this test")


def test_bundles_without_joint_models_are_read_as_before(made):
    content = json.loads((made[0] / MANIFEST).read_text())
    content["models"] = [model for model in content["models"] if not model["members"]]
    for model in content["models"]:
        del model["members"]
    old = Manifest.check(content, "this test")
    assert old.joint_models(["student-0", "student-2"]) == ()
    assert Path(made[0] / old.models[0].files[0].file).exists()
