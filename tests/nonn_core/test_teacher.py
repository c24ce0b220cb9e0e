import json
import shutil

import pytest
import torch

from nonn_core.family import parse_network
from nonn_core.modules import build_classifier
from nonn_core.teacher import Teacher, TeacherCard
from profiles.errors import InputError


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
    moved = Teacher(teacher.network, teacher.card, tmp_path / "new" / "t.safetensors")
    moved.save()
    loaded = Teacher.load(moved.path)
    for one, other in zip(teacher(images), loaded(images), strict=True):
        assert torch.equal(one, other)
    assert loaded.card == teacher.card
    assert sorted(p.name for p in moved.path.parent.iterdir()) == ["t.json", "t.safetensors"]


def test_maps_are_those_of_fconv_and_give_the_logits(teacher, images):
    logits, maps = teacher(images)
    expected_logits, expected_maps = teacher.network(images)
    assert torch.equal(logits, expected_logits)
    assert torch.equal(maps, expected_maps)
    weight, bias = teacher.classifier()
    torch.testing.assert_close(maps.mean(dim=(2, 3)) @ weight.T + bias, logits)


def test_a_teacher_never_learns(teacher, images):
    assert not teacher.network.training
    logits, maps = teacher(images.requires_grad_())
    assert not logits.requires_grad
    assert not maps.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


@pytest.mark.parametrize("name", ["last_conv", "trunk.nothing", "", "Trunk"])
def test_a_module_that_is_not_there_is_answered_with_those_that_are(teacher_path, name):
    with pytest.raises(InputError, match="no such module") as caught:
        Teacher.load(teacher_path, fconv=name)
    message = str(caught.value)
    assert str(teacher_path) in message
    assert all(candidate in message for candidate in ("trunk", "trunk.norm", "group0", "fc"))


@pytest.mark.parametrize("name", ["trunk.norm", "trunk.groups", "group0", "trunk.groups.0", "fc"])
def test_a_module_that_is_not_the_last_convolutional_layer_is_refused(teacher_path, name):
    with pytest.raises(InputError, match="not the last convolutional layer") as caught:
        Teacher.load(teacher_path, fconv=name)
    assert repr(name) in str(caught.value)
    assert "'trunk'" in str(caught.value)


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
    with pytest.raises(InputError, match=r"teacher\.json: no such file"):
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


def test_names_of_networks_are_kept_in_one_form(teacher):
    card = TeacherCard.check({**teacher.card.model_dump(), "network": "WRN16-1"}, "this test")
    assert card.network == "wrn16:16,32,64"
    assert card.spec == parse_network("wrn16-1")


def test_an_untrained_network_with_the_right_fconv_is_accepted(teacher, tmp_path):
    network = build_classifier(parse_network("wrn10:4,6,8"), 3, 3, seed=0)
    assert Teacher(network, teacher.card, tmp_path / "t.safetensors").network is network
