"""Teachers that are not ours: imported from a package, or exported programs."""

import logging
import zipfile
from pathlib import Path

import pytest
import torch
from torch.export import Dim, export, save
from torch.nn import functional as F

from nonn_common.errors import InputError
from nonn_core.teacher.foreign import load_foreign
from nonn_core.teacher.teacher import TargetSpec, Teacher, teacher_and_data

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F

CONSTANT = 3


class Net(nn.Module):
    """conv, relu, conv, `after`, pool, dropout, fc; what differs is told by the arguments."""

    def __init__(self, after=None, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.after = after
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, classes)

    def maps(self, images):
        maps = self.last(self.relu(self.norm(self.conv(images))))
        return F.relu(maps) if self.after is None else self.after(maps)

    def pooled(self, images):
        return self.drop(self.pool(self.maps(images)).flatten(1))

    def forward(self, images):
        return self.fc(self.pooled(images))


class Block(nn.Module):
    """As torchvision writes it: one ReLU, in place, for two activations."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer1 = nn.Sequential(Block(3, 5))
        self.layer2 = nn.Sequential(Block(5, 7))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(x))), 1))


class InSteps(Net):
    """2x2 averages first, then their average: smaller maps with the same averages."""

    def __init__(self):
        super().__init__(nn.ReLU())
        self.pool = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1))


class Tuple(Net):
    def forward(self, images):
        maps = self.maps(images)
        return self.fc(self.pool(maps).flatten(1)), maps


class Functional(Net):
    """No module but convolutions; no Linear either."""

    def forward(self, images):
        return F.linear(self.maps(images).mean((2, 3)), self.fc.weight)


class Listless(Net):
    def forward(self, images):
        return {"logits": super().forward(images)}


class LogSoftmax(Net):
    def forward(self, images):
        return super().forward(images).log_softmax(1)


class Softmax(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)


class MaskedRelu(Net):
    """ReLU by hand: the mask is a boolean tensor of the maps' shape."""

    def maps(self, images):
        maps = self.last(self.relu(self.norm(self.conv(images))))
        return maps * (maps > 0)


class Indexed(Net):
    """A pooling on the way that also gives indices, integers of four dimensions."""

    def maps(self, images):
        pooled, places = F.max_pool2d(self.conv(images), 2, return_indices=True)
        return F.relu(pooled.repeat(1, 2, 1, 1)[:, :8]) * (1 + (places[:, :1] % 2))


class MaximumPool(Net):
    """The maxima of the maps, not their averages, are what the last layer reads."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)


class Rounded(Net):
    """Answers whole numbers."""

    def forward(self, images):
        return super().forward(images).round().long()


class FunctionalDropout(Net):
    """The usual slip: F.dropout is random unless it is told not to be."""

    def pooled(self, images):
        return F.dropout(self.pool(self.maps(images)).flatten(1), 0.5)


class Half(Net):
    def __init__(self):
        super().__init__(nn.ReLU())
        self.half()


class Flat(Net):
    def __init__(self):
        super().__init__(nn.ReLU())
        self.fc = nn.Linear(8 * 16, 3)

    def forward(self, images):
        return self.fc(self.maps(images).flatten(1))


class Deep(Net):
    def __init__(self):
        super().__init__(nn.ReLU())
        self.drop = nn.Sequential(nn.Linear(8, 8), nn.ReLU())


class Unexportable(Net):
    def forward(self, images):
        return super().forward(images) * (2 if images.max() > 99 else 1)


class Branching(Net):
    """What it does depends on values: no trace, but an activation that is a module."""

    def __init__(self):
        super().__init__(nn.ReLU())

    def forward(self, images):
        return super().forward(images * 2 if images.max() > 99 else images)


class Together(Net):
    def forward(self, images):
        return super().forward(images - images.mean(0))


class Random(Net):
    def forward(self, images):
        return super().forward(images + torch.rand_like(images))


class Wrong(Net):
    def forward(self, images):
        raise RuntimeError("no such\\nluck")


def named():
    return Net(nn.ReLU(inplace=True))


def functional():
    return Net()


def gelu():
    return Net(nn.GELU())


def linear():
    return Net(nn.Identity())


def four():
    return Net(nn.ReLU(), classes=4)


def broken():
    net = Net()
    net.load_state_dict({k: v * float("nan") for k, v in net.state_dict().items()})
    return net


def leaving():
    raise SystemExit(0)


def raising():
    raise ZeroDivisionError("on purpose")


def nothing():
    return None


def needy(depth):
    return Net()
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the package `strange`, which no other test imports."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "strange").mkdir()
    (folder / "strange" / "__init__.py").touch()
    (folder / "strange" / "nets.py").write_text(SOURCE)
    (folder / "strange" / "broken.py").write_text("import nothing_of_that_name\n")
    return folder


@pytest.fixture(autouse=True)
def _inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def probe(tiny):
    return tiny.normalised(tiny.train.pixels[:4])


@pytest.fixture
def images(tiny):
    """Seven images: as many as no probe and no fixed batch."""
    return tiny.normalised(tiny.train.pixels[10:17])


def made(name):
    """The network of the package, in evaluation mode."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path.cwd())
        from strange import nets
    return getattr(nets, name)().eval()


def exported(name, path, count=4, batch=None, decomposed=False):
    program = export(
        made(name), (torch.zeros(count, 3, 8, 8),), dynamic_shapes=batch and ({0: batch},)
    )
    if decomposed:
        program = program.run_decompositions()
    save(program, path)
    return str(path)


def same_as(network, found, images):
    """What was found answers as the network does, by what it says of its last layers."""
    with torch.no_grad():
        logits, (maps,) = found(images)
        expected = network(images)
        expected = expected[0] if isinstance(expected, tuple) else expected
        expected_maps = network.maps(images)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(maps, expected_maps)
    torch.testing.assert_close(maps.mean((2, 3)) @ found.fc_weight.T + found.fc_bias, expected)


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
    """What stands for negative values is said when a partition measures them."""
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


def test_a_program_in_half_precision_says_what_to_do(tmp_path, probe):
    program = export(made("Half"), (probe.half(),))
    save(program, tmp_path / "half.pt2")
    with pytest.raises(InputError, match=r"float16.*allowed: torch\.float32; .*network\.float\(\)"):
        load_foreign(str(tmp_path / "half.pt2"), probe, 3, None)


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


@pytest.mark.parametrize("name", ["named", "functional", "Functional"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_program_of_a_fixed_batch_answers_any_number(tmp_path, probe, images, name, count):
    found = load_foreign(exported(name, tmp_path / "net.pt2", count), probe, 3, None)
    same_as(made(name), found, images)
    same_as(made(name), found, images[:3])
    network = made(name)
    assert found.params == sum(each.numel() for each in network.parameters())


def test_a_program_of_any_batch(tmp_path, probe, images):
    reference = exported("functional", tmp_path / "net.pt2", batch=Dim("batch"))
    found = load_foreign(reference, probe, 3, None)
    assert found.fconv == "relu"
    same_as(made("functional"), found, images)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_a_decomposed_program(tmp_path, probe, images):
    """The last layer is then addmm, or mm where it has no bias."""
    for name in ("named", "Functional"):
        path = exported(name, tmp_path / f"{name}.pt2", batch=Dim("batch"), decomposed=True)
        same_as(made(name), load_foreign(path, probe, 3, None), images)


def test_a_program_for_other_images_is_refused(tmp_path, probe):
    path = exported("named", tmp_path / "net.pt2")
    with pytest.raises(InputError, match=r"net\.pt2: is not made for these images.*3, 9, 8"):
        load_foreign(path, torch.randn(4, 3, 9, 8), 3, None)


def test_a_program_of_two_inputs_is_refused(tmp_path, probe):
    class Two(torch.nn.Module):
        def forward(self, one, other):
            return F.relu(one + other).mean((2, 3))

    save(export(Two(), (probe, probe)), tmp_path / "two.pt2")
    with pytest.raises(InputError, match="allowed: one input"):
        load_foreign(str(tmp_path / "two.pt2"), probe, 3, None)


@pytest.mark.parametrize(
    ("dropout", "said"), [(0.5, "answered differently each time"), (0.0, "answered differently")]
)
def test_a_program_in_training_mode_is_refused(tmp_path, probe, dropout, said):
    network = made("named").train()
    network.drop.p = dropout
    save(export(network, (probe,), dynamic_shapes=({0: Dim("batch")},)), tmp_path / "net.pt2")
    with pytest.raises(InputError, match=f"{said}.*evaluation mode"):
        load_foreign(str(tmp_path / "net.pt2"), probe, 3, None)


def test_a_damaged_program_is_named_without_a_traceback(tmp_path, probe, caplog):
    path = tmp_path / "net.pt2"
    whole = exported("named", path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = max(archive.infolist(), key=lambda info: info.file_size).header_offset
    flipped = bytes(content[weights + 300 : weights + 340])[::-1]
    for damaged in (
        b"",
        b"PK",
        content[:-100],
        content[: weights + 300] + flipped + content[weights + 340 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"net\.pt2: is not a whole exported program"):
            load_foreign(whole, probe, 3, None)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "not a program")
    with pytest.raises(InputError, match=r"net\.pt2: is not a whole exported program"):
        load_foreign(whole, probe, 3, None)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not logging.getLogger("torch.export").disabled
    path.unlink()
    with pytest.raises(InputError, match=r"net\.pt2: no such teacher"):
        load_foreign(whole, probe, 3, None)


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


def test_a_program_counts_the_same_whatever_its_batch(tiny, tmp_path):
    reference = Teacher.load("strange.nets:named", None, tiny).reference
    path = exported("named", tmp_path / "net.pt2", 3)
    said = Teacher.load(path, None, tiny).reference
    assert (said.params, said.macs) == (reference.params, reference.macs)
    assert said.peak_elements is None


def test_what_fx_cannot_trace_has_no_peak(tiny):
    said = Teacher.load("strange.nets:Branching", None, tiny).reference
    assert said.peak_elements is None
    assert said.macs is not None


def test_a_foreign_teacher_needs_data():
    with pytest.raises(InputError, match=r"strange\.nets:named: this teacher does not say.*--data"):
        teacher_and_data("strange.nets:named", None)
