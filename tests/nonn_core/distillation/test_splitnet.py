import itertools

import pytest
import torch
from killed_runs import KilledError

from nonn_common.errors import InputError
from nonn_core.distillation.batches import Batch
from nonn_core.distillation.construction import AssignmentPhase, build_network, objective_of
from nonn_core.distillation.loop import accuracy_pct
from nonn_core.distillation.losses import distillation
from nonn_core.distillation.run import load_run, train
from nonn_core.distillation.run_evaluation import evaluate
from nonn_core.distillation.splitnet import SoftSplitNet, build_splitnet, cut_groups
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.group_layout import ChannelSet, group_layout
from nonn_core.networks.modules import build_classifier
from nonn_core.networks.network_cost import teacher_cost
from nonn_core.recipe import TrainingRecipe
from nonn_core.teacher.inspection import measured_cost
from nonn_core.teacher.teacher import TeacherOutputs

IMAGE = ImageShape(3, 16, 16)
CASES = [
    ("wrn16:4,8,12", (2,)),
    ("wrn16:4,8,12", (2, 2)),
    ("wrn16:4,9,13", (2, 2, 4)),
    ("wrn10:4,8,12", (3, 3, 3)),
    ("vgg11:4,6,8,10,12", (2, 4)),
    ("resnet18-cifar:4,6,8,10", (2, 2, 2)),
    ("resnet50-cifar:4,4,6,6", (2, 2)),
    ("mobilenetv2-cifar-0.25", (2, 2, 2, 4)),
]


def splitting_of(network, groups, classes=7, seed=0):
    spec = parse_network(network)
    layout = group_layout(spec, 3, classes, groups)
    return SoftSplitNet(build_classifier(spec, 3, classes, seed), layout, 100.0, seed)


def block(weight, reads, writes):
    """Zero what leads from one group to another; groups by channel."""
    for (j, to), (i, origin) in itertools.product(enumerate(writes), enumerate(reads)):
        if to != origin:
            weight[j, i] = 0


def decided(splitting, seed=0):
    """Give channels groups at random, and leave only the weights that stay inside them."""
    generator = torch.Generator().manual_seed(seed)
    owners = []
    with torch.no_grad():
        for logits, each in zip(splitting.logits, splitting.layout.sets, strict=True):
            owner = torch.arange(each.channels) % each.groups
            owner = owner[torch.randperm(each.channels, generator=generator)]
            logits.zero_()
            logits[owner, torch.arange(each.channels)] = 1000.0
            owners.append(owner)
        modules = [
            module
            for stage in splitting.stages()
            for module in stage.modules()
            if isinstance(module, torch.nn.Conv2d) and module.groups == 1
        ]
        links = splitting.layout.links()
        for layer, link in zip([*modules, splitting.classifier.fc], links, strict=True):
            reads, writes, groups = link
            sets = splitting.layout.sets
            block(
                layer.weight,
                owners[reads] // (sets[reads].groups // groups),
                owners[writes] // (sets[writes].groups // groups),
            )
    return splitting


def with_statistics(network):
    """Let normalisations see images, so that channels differ in all that they have."""
    network.train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.2, 0.2, generator=generator)
        for _ in range(3):
            network(torch.randn(8, 3, 16, 16, generator=generator))
    return network.eval()


@pytest.mark.parametrize(("network", "groups"), CASES)
def test_what_is_cut_off_was_of_no_use(network, groups):
    # Where no weight crosses groups, the cut network answers as the whole one did.
    splitting = with_statistics(decided(splitting_of(network, groups)))
    found = cut_groups(splitting).eval()
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole, split = splitting(images)[0], found(images)[0]
    assert whole.std() > 1e-3
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("network", "groups"), CASES)
def test_the_recipe_s_network_has_the_shapes_of_every_cut(network, groups):
    spec, splitting = parse_network(network), splitting_of(network, groups)
    built = build_splitnet(spec, 3, 7, groups, seed=3)
    built.load_state_dict(cut_groups(splitting).state_dict())
    cost, whole = measured_cost(built, IMAGE), teacher_cost(spec, IMAGE, 7)
    assert cost.params < whole.params
    assert cost.macs < whole.macs


def test_parameters_and_macs_of_a_split_wrn_by_hand():
    found = measured_cost(build_splitnet(parse_network("wrn10:4,8,12"), 3, 6, (2, 2), 0), IMAGE)
    # Whole: stem 3 -> 16, group 16 -> 4, group 4 -> 8, with their normalisations.
    stem = 3 * 16 * 9
    first = 2 * 16 + 16 * 4 * 9 + 2 * 4 + 4 * 4 * 9 + 16 * 4
    second = 2 * 4 + 4 * 8 * 9 + 2 * 8 + 8 * 8 * 9 + 4 * 8
    # Each half: 4 -> 6, then 6 features to 3 classes.
    half = 2 * 4 + 4 * 6 * 9 + 2 * 6 + 6 * 6 * 9 + 4 * 6 + 2 * 6
    assert found.params == stem + first + second + 2 * (half + 6 * 3 + 3)
    whole = teacher_cost(parse_network("wrn10:4,8,12"), IMAGE, 6)
    # At 4x4 places each half saves half of its convolutions, and the FC layer half of its own.
    convolutions = 8 * 12 * 9 + 12 * 12 * 9 + 8 * 12
    assert whole.macs - found.macs == convolutions // 2 * 16 + 12 * 6 // 2


def test_groups_never_see_each_other():
    network = build_splitnet(parse_network("wrn10:4,8,12"), 3, 7, (2, 2), seed=0).eval()
    image = torch.randn(1, 3, 16, 16)
    for group, fc in enumerate(network.fc):
        network.zero_grad()
        named = network.classes.argsort()[(0, 4)[group] : (4, 7)[group]]
        network(image)[0][0, named].sum().backward()
        assert fc.weight.grad.any()
        other = [*network.levels[0][1 - group].parameters(), *network.fc[1 - group].parameters()]
        assert all(p.grad is None or not p.grad.any() for p in other)


def test_a_residual_row_agrees_on_its_groups_and_inner_channels_are_free():
    layout = group_layout(parse_network("wrn16:4,8,12"), 3, 10, (2, 4))
    # Entry, the row's own channels (in four, as the FC layer reads them), two inner sets, classes.
    assert [(s.channels, s.groups) for s in layout.sets] == [
        (8, 2),
        (12, 4),
        (12, 2),
        (12, 2),
        (10, 4),
    ]
    assert list(layout.links()) == [
        (0, 2, 2), (2, 1, 2), (0, 1, 2), (1, 3, 2), (3, 1, 2), (1, 4, 4)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("channels", "groups", "sizes"), [(10, 4, [3, 3, 2, 2]), (8, 2, [4, 4]), (3, 3, [1, 1, 1])]
)
def test_groups_are_as_equal_as_can_be(channels, groups, sizes):
    each = ChannelSet(channels, groups)
    assert each.sizes(groups) == sizes
    assert each.bounds(groups - 1, groups) == (channels - sizes[-1], channels)


def test_finer_groups_lie_inside_coarser_ones():
    each = ChannelSet(10, 4)
    assert each.sizes(2) == [6, 4]
    assert each.bounds(1, 2) == (each.bounds(2, 4)[0], each.bounds(3, 4)[1])


def test_the_likeliest_equal_groups_by_exhaustive_search():
    splitting = splitting_of("wrn10:4,6,8", (2,), classes=5)
    with torch.no_grad():
        for logits in splitting.logits:
            logits.copy_(torch.randn(logits.shape, generator=torch.Generator().manual_seed(3)))
    for shares, order, each in zip(
        splitting.shares(), splitting.orders(), splitting.layout.sets, strict=True
    ):
        size = each.sizes(2)[0]
        chances = shares.detach().double().log()

        def chance(first, chances=chances, channels=each.channels):
            rest = [c for c in range(channels) if c not in first]
            return float(chances[0, list(first)].sum() + chances[1, rest].sum())

        best = max(itertools.combinations(range(each.channels), size), key=chance)
        assert order[:size].tolist() == list(best)
        assert sorted(order.tolist()) == list(range(each.channels))


def test_undecided_penalties_are_one():
    penalties = splitting_of("wrn16:4,8,12", (2, 2, 4)).penalties()
    for value in (penalties.weight, penalties.overlap, penalties.balance):
        assert value.item() == pytest.approx(1, abs=1e-3)


def test_decided_penalties_are_zero_but_for_balance():
    penalties = decided(splitting_of("wrn16:4,8,12", (2, 2, 4), classes=8)).penalties()
    assert penalties.weight.item() == pytest.approx(0, abs=1e-6)
    assert penalties.overlap.item() == pytest.approx(0, abs=1e-6)
    assert penalties.balance.item() == pytest.approx(1, abs=1e-5)


def test_penalties_are_not_computed_in_half_precision():
    splitting = splitting_of("wrn10:4,8,12", (2, 2))
    expected = splitting.penalties()
    with torch.autocast("cpu", torch.bfloat16):
        found = splitting.penalties()
    assert torch.equal(found.weight, expected.weight)


@pytest.mark.parametrize("channels", [8, 64])
@pytest.mark.parametrize("steps", [50, 400])
def test_shares_decide_within_their_training_however_wide_and_long(channels, steps):
    spec = parse_network(f"wrn10:4,8,{channels}")
    layout = group_layout(spec, 3, 10, (2,))
    splitting = SoftSplitNet(build_classifier(spec, 3, 10, 0), layout, steps * 0.1, 0)
    optimiser = torch.optim.SGD(splitting.logits.parameters(), lr=0.1)
    for _ in range(steps):
        penalties = splitting.penalties()
        optimiser.zero_grad()
        (penalties.overlap + 10 * penalties.balance).backward()
        optimiser.step()
    largest = splitting.shares()[0].amax(dim=0)
    assert largest.median() > 0.9


def recipe(**losses):
    content = {
        "data": "digits",
        "image": "3x16x16",
        "teacher": "teacher.safetensors",
        "model": {
            "kind": "splitnet",
            "network": "wrn10:4,8,12",
            "groups": [2, 2],
            "gamma_weight": 3,
            "gamma_overlap": 0.5,
            "gamma_balance": 2,
        },
        "optimiser": {"epochs": 5},
        "distillation": losses,
    }
    return TrainingRecipe.check(content, "this test")


def assignment(**losses):
    made = recipe(**losses)
    return made, AssignmentPhase.of(made, made.model, 6, batches=4)


def test_a_splitnet_is_assigned_and_then_cut_and_trained_on():
    made, phase = assignment()
    assert isinstance(phase.network, SoftSplitNet)
    decided(phase.network, seed=5)
    assert (phase.optimiser.epochs, phase.remaining.epochs) == (3, 2)
    cut = cut_groups(phase.network)
    assert build_network(made, 6).state_dict().keys() == cut.state_dict().keys()


def test_groups_are_assigned_from_the_labels_and_what_is_cut_is_taught():
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6)
    made, phase = assignment(alpha=0.25)
    network = phase.network.eval()
    losses = phase.objective(Batch(images, labels))
    penalties = network.penalties()
    hard = torch.nn.functional.cross_entropy(network(images)[0], labels)
    expected = hard + 3 * penalties.weight + 0.5 * penalties.overlap + 2 * penalties.balance
    torch.testing.assert_close(losses["loss"], expected)
    losses["loss"].backward()
    assert all(parameter.grad.any() for parameter in network.parameters())
    cut = cut_groups(phase.network)
    taught = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    found = objective_of(cut, made)(Batch(images, labels, TeacherOutputs(taught)))["loss"]
    logits = cut(images)[0]
    torch.testing.assert_close(found, distillation(logits, taught, labels, 0.25, 4.0))


def test_more_groups_than_classes_are_refused():
    with pytest.raises(InputError, match=r"more groups.*found 8.*at most 6"):
        group_layout(parse_network("wrn10:8,8,8"), 3, 6, (8,))


@pytest.fixture
def splitnet_recipe(nonn_recipe):
    content = nonn_recipe.model_dump(mode="json")
    content["model"] = {
        "kind": "splitnet",
        "network": "wrn10:4,6,8",
        "groups": [2, 2],
        "assignment_share": 0.5,
    }
    content["optimiser"]["epochs"] = 4
    return TrainingRecipe.check(content, "this test")


def killed_at(step):
    steps = itertools.count(1)

    def progress(what, done, total):
        if what.startswith("epoch") and next(steps) == step:
            raise KilledError

    return progress


@pytest.mark.parametrize("step", [7, 17])
def test_a_splitnet_killed_before_or_after_the_cut_ends_as_if_it_had_not_been(
    splitnet_recipe, tiny, tmp_path, step
):
    # Four epochs of five batches, the cut after the second.
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    history = train(splitnet_recipe, whole, tiny)
    assert [metrics.epoch for metrics in history] == [1, 2]
    with pytest.raises(KilledError):
        train(splitnet_recipe, killed, tiny, killed_at(step))
    assert not (killed / "model.safetensors").exists()
    assert (killed / "checkpoint.safetensors").exists() == (step == 17)
    assert train(splitnet_recipe, killed, tiny) == history
    names = {file.name for file in whole.iterdir()}
    assert {"assignment-checkpoint.safetensors", "assignment-metrics.jsonl"} <= names
    for name in names:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_trained_splitnet_comes_back_from_its_folder(splitnet_recipe, tiny, tmp_path):
    history = train(splitnet_recipe, tmp_path, tiny)
    recipe, network = load_run(tmp_path, tiny)
    assert recipe == splitnet_recipe
    _, validation = tiny.split(3)
    found = accuracy_pct(network, tiny, validation)
    assert found == pytest.approx(history[-1].validation_accuracy_pct)
    result = evaluate(network, recipe, tiny)
    assert result.accuracy_pct == pytest.approx(accuracy_pct(network, tiny, tiny.test))
    assert result.subsets == ()
