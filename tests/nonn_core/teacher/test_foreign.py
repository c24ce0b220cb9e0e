"""Teachers that are not ours: networks imported from a package."""

import pytest
import torch
from foreign_programs import made, same_as

from nonn_common.errors import InputError
from nonn_core.teacher.foreign import load_foreign
from nonn_core.teacher.teacher import TargetSpec, Teacher, teacher_and_data

pytestmark = pytest.mark.usefixtures("beside_strange")


@pytest.mark.parametrize(
    ("name", "fconv"),
    [
        ("named", "after"),
        ("InSteps", "after"),
        # Functions, not modules: nodes of the exported graph.
        ("functional", "relu"),
        ("Functional", "relu"),
        ("Tuple", "relu"),
    ],
)
def test_fconv_is_found(name, fconv, probe, images):
    found = load_foreign(f"strange.nets:{name}", probe, 3, None)
    assert found.fconv.startswith(fconv)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    same_as(made(name), found, images)
    same_as(made(name), found, images[:1])


@pytest.mark.parametrize(
    ("name", "fconv", "places"),
    [("MaskedRelu", "mul", (4, 4)), ("Indexed", "mul", (4, 4)), ("MaximumPool", "getitem", (1, 1))],
)
def test_masks_and_indices_are_no_maps(name, fconv, places, probe, images):
    found, network = load_foreign(f"strange.nets:{name}", probe, 3, None), made(name)
    assert found.fconv.startswith(fconv)
    seen = found.observe(images)
    assert seen.maps.shape == (7, 8, *places)
    with torch.no_grad():
        torch.testing.assert_close(seen.logits, network(images))
        torch.testing.assert_close(seen.features, network.pooled(images))
    torch.testing.assert_close(seen.maps.mean((2, 3)), seen.features)
    assert [text for text in found.warnings if "without places" in text] == (
        list(found.warnings) if places == (1, 1) else []
    )
    assert bool(found.warnings) == (places == (1, 1))


@pytest.mark.parametrize("name", ["gelu", "linear"])
def test_signed_maps_are_taken(name, probe, images):
    """The values that stand for negative ones are named when a partition measures them."""
    found = load_foreign(f"strange.nets:{name}", probe, 3, None)
    assert found.fconv == "after"
    assert found(images)[1][0].min() < 0
    same_as(made(name), found, images)


def test_log_softmax_is_an_answer_as_good_as_logits(probe, images):
    found, network = load_foreign("strange.nets:LogSoftmax", probe, 3, None), made("LogSoftmax")
    seen = found.observe(images)
    torch.testing.assert_close(seen.logits, network(images))
    logits = seen.features @ found.fc_weight.T + found.fc_bias
    torch.testing.assert_close(logits.log_softmax(1), seen.logits)


def test_a_hidden_layer_s_values_are_maps_of_one_place(probe, images):
    found, network = load_foreign("strange.nets:Deep", probe, 3, None), made("Deep")
    with torch.no_grad():
        torch.testing.assert_close(found(images)[1][0], network.pooled(images)[:, :, None, None])
    assert "one value for each filter" in found.warnings[0]


def test_half_precision_is_widened_and_said(probe, images):
    found, network = load_foreign("strange.nets:Half", probe, 3, None), made("Half").float()
    with torch.no_grad():
        torch.testing.assert_close(found(images)[0], network(images))
    assert found.warnings == ("weights are torch.float16: the network was converted to float32",)


def test_the_largest_maps_win_and_the_outermost_name(probe, images):
    found = load_foreign("strange.nets:ResNet", probe, 3, None)
    assert found.fconv == "layer2"
    network = made("ResNet")
    with torch.no_grad():
        logits, (maps,) = found(images)
        torch.testing.assert_close(logits, network(images))
        torch.testing.assert_close(maps, network.layer2(network.layer1(images)))
    assert maps.shape == (7, 7, 2, 2)
    assert load_foreign("strange.nets:ResNet", probe, 3, "layer2.0.relu").fconv == "layer2.0.relu"


def test_a_named_layer_may_be_any_that_fits(probe):
    found = load_foreign("strange.nets:InSteps", probe, 3, "pool.0")
    assert found(probe)[1][0].shape == (4, 8, 2, 2)


@pytest.mark.parametrize("name", ["layer3", "layer1", "fc", "layer2.0.conv1", ""])
def test_a_wrong_fconv_lists_the_candidates(probe, name):
    with pytest.raises(InputError, match=r"strange\.nets:ResNet: fconv: is not") as caught:
        load_foreign("strange.nets:ResNet", probe, 3, name)
    assert repr(name) in str(caught.value)
    assert "layer2.0.relu, layer2.0, layer2" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Flat", "no fconv was found.*average maps.*one linear layer.*every place of .* after"),
        ("Rounded", "no fconv was found"),
        ("Softmax", "answers probabilities, not logits.*leave the softmax out"),
        ("FunctionalDropout", r"answered differently each time.*F\.dropout\(.*self\.training"),
        ("Unexportable", "no fconv was found.*cannot be exported"),
        ("Listless", "cannot be run.*answers dict, not logits"),
        ("four", "another number of classes.*4"),
        ("Together", "answered differently when other images"),
        ("Random", "answered differently"),
        ("Wrong", r"cannot be run on images \(4, 3, 8, 8\): RuntimeError: no such$"),
        ("broken", "some logits are not finite"),
        ("leaving", "cannot be built: SystemExit"),
        ("raising", "cannot be built: ZeroDivisionError: on purpose"),
        ("needy", "cannot be built: TypeError.*depth"),
        ("CONSTANT", "cannot be built: TypeError.*not callable"),
        ("missing", "cannot be built: AttributeError.*missing"),
        ("nothing", "does not return a network.*NoneType.*Module"),
    ],
)
def test_what_cannot_teach_is_refused(probe, name, message):
    with pytest.raises(InputError, match=message) as caught:
        load_foreign(f"strange.nets:{name}", probe, 3, None)
    assert str(caught.value).startswith(f"strange.nets:{name}: ")


@pytest.mark.parametrize("reference", ["stranger:make", "strange.none:make", "strange.broken:make"])
def test_what_cannot_be_imported_is_said(probe, reference):
    with pytest.raises(InputError, match=f"{reference}: cannot be imported.*No module named"):
        load_foreign(reference, probe, 3, None)


def test_images_that_a_network_is_not_made_for(tiny):
    with pytest.raises(InputError, match=r"cannot be run on images \(4, 1, 8, 8\)"):
        load_foreign("strange.nets:named", torch.randn(4, 1, 8, 8), 3, None)


def test_a_foreign_teacher_teaches(tiny, images):
    teacher, dataset = teacher_and_data("strange.nets:named", tiny.source, seed=6)
    assert dataset.source == tiny.source
    teacher.check_data(tiny)
    outputs = teacher.outputs(images, TargetSpec(((1, 4), (0,)), attention=True))
    maps = made("named").maps(images)
    assert [tuple(each.shape) for each in outputs.maps] == [(7, 2, 4, 4), (7, 1, 4, 4)]
    torch.testing.assert_close(outputs.maps[0], maps[:, [1, 4]])
    torch.testing.assert_close(outputs.attention, [maps.square().sum(1)])
    assert not outputs.logits.requires_grad
    assert (teacher.seed, teacher.filters) == (6, 8)
    again = Teacher.load("strange.nets:named", None, tiny)
    assert again.fingerprint == teacher.fingerprint
    assert Teacher.load("strange.nets:ResNet", None, tiny).fingerprint != teacher.fingerprint


def test_what_a_partition_says_of_it(tiny):
    """Counted by hand: 3x3 convolutions at 8x8 and 4x4, norm 2 per element, pool 1, fc."""
    said = Teacher.load("strange.nets:named", None, tiny).reference
    assert (said.path, said.network, said.fconv) == ("strange.nets:named", None, "after")
    assert (said.data, said.image, said.classes) == (tiny.source, "3x8x8", 3)
    assert said.params == (27 * 6 + 6) + 12 + (54 * 8 + 8) + (8 * 3 + 3)
    assert said.macs == 27 * 6 * 64 + 2 * 6 * 64 + 54 * 8 * 16 + 8 * 16 + 8 * 3
    # The second convolution reads 6x8x8 and writes 8x4x4.
    assert said.peak_elements == max((3 + 6) * 64, 6 * 64 + 8 * 16)


def test_what_fx_cannot_trace_has_no_peak(tiny):
    said = Teacher.load("strange.nets:Branching", None, tiny).reference
    assert said.peak_elements is None
    assert said.macs is not None


def test_a_foreign_teacher_needs_data():
    with pytest.raises(InputError, match=r"strange\.nets:named: this teacher does not say.*--data"):
        teacher_and_data("strange.nets:named", None)
