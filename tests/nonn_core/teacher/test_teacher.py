import json
import shutil

import pytest
import torch

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import build_classifier
from nonn_core.networks.network_cost import teacher_cost
from nonn_core.teacher.teacher import (
    TargetSpec,
    Teacher,
    TeacherCard,
    TrainedTeacher,
    teacher_and_data,
)


@pytest.fixture
def images():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def copied(teacher_path, tmp_path):
    """A copy of the teacher that a test may damage."""
    for path in (teacher_path, teacher_path.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / teacher_path.name


def edit_card(path, **changes):
    card = path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))


def test_a_saved_teacher_gives_identical_logits(teacher, images, tmp_path):
    moved = TrainedTeacher(teacher.network, teacher.card, tmp_path / "new" / "t.safetensors")
    moved.save()
    loaded = Teacher.load(moved.path)
    for one, other in zip(teacher(images), loaded(images), strict=True):
        assert torch.equal(one, other)
    assert loaded.card == teacher.card
    assert loaded.fingerprint == teacher.fingerprint
    assert sorted(p.name for p in moved.path.parent.iterdir()) == ["t.json", "t.safetensors"]


def test_a_teacher_from_before_validates_on_images_that_it_never_saw(copied, teacher, tiny):
    for part, known in zip(teacher.split(tiny), tiny.split(3), strict=True):
        assert torch.equal(part.pixels, known.pixels)
    card = json.loads(copied.with_suffix(".json").read_text())
    del card["split_by_class"]
    copied.with_suffix(".json").write_text(json.dumps(card))
    old = Teacher.load(copied).split(tiny)
    for part, known in zip(old, tiny.split(3, by_class=False), strict=True):
        assert torch.equal(part.pixels, known.pixels)


def test_maps_are_those_of_fconv_and_give_the_logits(teacher, images):
    logits, maps = teacher(images)
    expected_logits, expected_maps = teacher.network(images)
    assert torch.equal(logits, expected_logits)
    assert torch.equal(maps, expected_maps[-1])
    assert maps.min() >= 0
    weight, bias = teacher.classifier()
    assert teacher.filters == weight.shape[1] == maps.shape[1] == 8
    torch.testing.assert_close(maps.mean(dim=(2, 3)) @ weight.T + bias, logits)


def test_a_lesson_shows_what_it_is_asked_for(teacher, images):
    logits, maps = teacher.network(images)
    outputs = teacher.outputs(images, TargetSpec(((5, 0), (7,)), attention=True))
    assert torch.equal(outputs.logits, logits)
    assert torch.equal(outputs.maps[0], torch.stack([maps[-1][:, 5], maps[-1][:, 0]], dim=1))
    assert torch.equal(outputs.maps[1], maps[-1][:, 7:])
    # G0 and two more stages: 8x8, 4x4, 2x2.
    assert [tuple(each.shape) for each in outputs.attention] == [(5, 8, 8), (5, 4, 4), (5, 2, 2)]
    for shown, stage in zip(outputs.attention, maps, strict=True):
        torch.testing.assert_close(shown, (stage * stage).sum(dim=1))
    assert not teacher.outputs(images, TargetSpec()).attention
    assert not teacher.outputs(images, TargetSpec()).maps


def test_a_teacher_never_learns(teacher, images):
    assert not teacher.network.training
    logits, maps = teacher(images.requires_grad_())
    assert not logits.requires_grad
    assert not maps.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


def test_what_a_partition_says_of_it(teacher, teacher_path, tiny):
    cost = teacher_cost(parse_network("wrn10:4,6,8"), ImageShape(3, 8, 8), 3)
    found = teacher.reference
    assert (found.path, found.network, found.fconv) == (str(teacher_path), "wrn10:4,6,8", "trunk")
    assert (found.data, found.image, found.classes) == (tiny.source, "3x8x8", 3)
    assert (found.params, found.macs) == (cost.params, cost.macs)
    assert found.peak_elements == cost.peak_elements
    assert found.params == sum(each.numel() for each in teacher.network.parameters())
    assert teacher.seed == teacher.card.seed == 3


def test_a_teacher_can_be_moved(teacher, images):
    """To a device without values, where there is no other: shapes follow."""
    moved = teacher.to("meta")
    outputs = moved.outputs(images.to("meta"), TargetSpec(((1, 2),), attention=True))
    assert {t.device.type for t in (outputs.logits, *outputs.maps, *outputs.attention)} == {"meta"}


def test_data_comes_from_the_card_unless_it_is_given(teacher_path, tiny):
    teacher, dataset = teacher_and_data(str(teacher_path), None)
    assert dataset.source == teacher.card.data == tiny.source
    _, digits = teacher_and_data(str(teacher_path), "digits")
    with pytest.raises(InputError, match="digits is not what the teacher was made for"):
        teacher.check_data(digits)
    teacher.check_data(dataset)


@pytest.mark.parametrize("name", ["last_conv", "", "Trunk", "trunk.0", "fc"])
def test_another_fconv_is_refused(teacher_path, name):
    with pytest.raises(InputError, match="not the last convolutional layer") as caught:
        Teacher.load(teacher_path, fconv=name)
    message = str(caught.value)
    assert str(teacher_path) in message
    assert repr(name) in message
    assert "allowed: trunk" in message


def test_the_card_s_own_fconv_is_checked_too(copied):
    edit_card(copied, fconv="trunk.norm")
    with pytest.raises(InputError, match="not the last convolutional layer"):
        Teacher.load(copied)
    assert Teacher.load(copied, fconv="trunk").card.fconv == "trunk"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "wrn10:4,6,9"}, r"teacher\.safetensors: weights of another network: tensor"),
        ({"network": "wrn16:4,6,8"}, r"teacher\.safetensors: weights of another network: tensor"),
        ({"classes": 4}, r"tensor fc\.bias; found \(3,\); allowed: \(4,\)"),
        ({"image": "1x8x8"}, r"tensor group0\.0\.weight"),
        ({"image": "8x8"}, r"teacher\.json.*field image: .*CHANNELSxHEIGHTxWIDTH"),
        ({"network": "resnet"}, r"teacher\.json.*field network"),
        ({"classes": 1}, r"teacher\.json.*field classes"),
        ({"seed": -1}, r"teacher\.json.*field seed"),
        ({"surprise": 1}, r"teacher\.json.*field surprise: is not a field"),
    ],
)
def test_a_card_of_another_network_is_refused(copied, changes, message):
    edit_card(copied, **changes)
    with pytest.raises(InputError, match=message):
        Teacher.load(copied)


def test_a_missing_card_or_file_is_named(copied):
    card = copied.with_suffix(".json")
    content = card.read_text()
    card.unlink()
    missing = r"teacher\.safetensors: .*has no card.*teacher\.json beside it.*module:callable"
    with pytest.raises(InputError, match=missing):
        Teacher.load(copied)
    card.write_text(content)
    copied.unlink()
    with pytest.raises(InputError, match=r"teacher\.safetensors: no such teacher"):
        Teacher.load(copied)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_card_that_is_not_a_card_is_named(copied, content):
    copied.with_suffix(".json").write_text(content)
    with pytest.raises(InputError, match=r"teacher\.json"):
        Teacher.load(copied)


def test_a_truncated_teacher_is_named(copied):
    copied.write_bytes(copied.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"teacher\.safetensors: is not a whole"):
        Teacher.load(copied)


@pytest.mark.parametrize("text", ["teacher", "teacher.pt", "run/", "a:b:c", ":make", "nets.py:"])
def test_what_is_no_teacher_is_told_what_is(text):
    with pytest.raises(InputError, match=r"allowed: .*\.safetensors.*\.pt2.*module:callable"):
        Teacher.load(text)


def test_names_of_networks_are_kept_in_one_form(teacher):
    card = TeacherCard.check({**teacher.card.model_dump(), "network": "WRN16-1"}, "this test")
    assert card.network == "wrn16:16,32,64"
    assert card.spec == parse_network("wrn16-1")


def test_an_untrained_network_is_accepted(teacher, tmp_path):
    network = build_classifier(parse_network("wrn10:4,6,8"), 3, 3, seed=0)
    made = TrainedTeacher(network, teacher.card, tmp_path / "t.safetensors")
    assert made.network is network
