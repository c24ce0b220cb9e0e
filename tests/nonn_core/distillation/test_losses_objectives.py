import pytest
import torch
from killed_runs import KilledError, killed_at
from torch.nn import functional as F

from nonn_core.distillation.batches import Batch
from nonn_core.distillation.construction import build_network, objective_of, target_spec_of
from nonn_core.distillation.losses import (
    activation_transfer,
    attention_transfer,
    classification,
    distillation,
    nonn_distillation,
    single_distillation,
    students_answering,
)
from nonn_core.distillation.run import train
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import (
    attention_map,
    build_classifier,
    build_nonn,
    global_average_pool,
)
from nonn_core.recipe import DistillationRecipe, TrainingRecipe
from nonn_core.teacher.teacher import TargetSpec, TeacherOutputs

STUDENTS = [
    {"name": "left", "network": "wrn10:4,5,6", "filters": [0, 2, 7]},
    {"name": "right", "network": "wrn10:4,8,7", "filters": [1, 3, 4, 5]},
]
PARTITIONS = [(7, 0, 2), (1, 3, 4, 5, 6)]
RECIPE = DistillationRecipe(alpha=0.7, temperature=3, beta=20)


def recipe_of(model=None, **losses):
    content = {
        "data": "digits",
        "image": "3x8x8",
        "teacher": "teacher.safetensors",
        "model": model or {"kind": "nonn", "students": STUDENTS},
        "optimiser": {"epochs": 2},
        "distillation": {"alpha": 0.7, "temperature": 3, **losses},
    }
    return TrainingRecipe.check(content, "this test")


@pytest.fixture(scope="module")
def taught():
    """A teacher's logits and the maps after each of its groups, for a batch of twelve images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 3, 8, 8, generator=generator)
    with torch.no_grad():
        logits, maps = build_classifier(parse_network("wrn10:4,6,8"), 3, 3, seed=9)(images)
    return images, logits, maps


@pytest.fixture
def batch(taught):
    images, logits, maps = taught
    shown = [maps[-1][:, list(partition)] for partition in PARTITIONS]
    attention = [each.square().sum(dim=1) for each in maps]
    return Batch(images, torch.arange(12) % 3, TeacherOutputs(logits, shown, attention), draw=4)


@pytest.fixture
def single():
    return build_classifier(parse_network("wrn16:4,5,6"), 3, 3, seed=1).eval()


@pytest.fixture
def nonn(two_shapes):
    return build_nonn(two_shapes, 3, 3, seed=1).eval()


def test_a_teacher_minimises_cross_entropy(single, batch):
    expected = F.cross_entropy(single(batch.images)[0], batch.labels)
    assert classification(single)(batch) == {"loss": expected}


def test_a_single_student_minimises_equation_1(single, batch):
    losses = single_distillation(single, RECIPE)(batch)
    logits = single(batch.images)[0]
    assert losses.keys() == {"loss"}
    torch.testing.assert_close(
        losses["loss"], distillation(logits, batch.teacher_outputs.logits, batch.labels, 0.7, 3)
    )


def test_a_nonn_minimises_equation_1_plus_beta_times_equation_6(nonn, taught, batch):
    losses = nonn_distillation(nonn, RECIPE)(batch)
    logits, maps = nonn(batch.images)
    kd = distillation(logits, taught[1], batch.labels, 0.7, 3)
    # Channel by channel, in the order in which the partition names them.
    chosen = [torch.stack([taught[2][-1][:, i] for i in part], dim=1) for part in PARTITIONS]
    transfer = activation_transfer(maps, chosen)
    assert losses.keys() == {"loss", "kd", "transfer"}
    torch.testing.assert_close(losses["kd"], kd)
    torch.testing.assert_close(losses["transfer"], transfer)
    torch.testing.assert_close(losses["loss"], kd + 20 * transfer)


def test_a_nonn_without_beta_minimises_equation_1_alone(nonn, batch):
    recipe = RECIPE.model_copy(update={"beta": 0.0})
    without_maps = Batch(batch.images, batch.labels, TeacherOutputs(batch.teacher_outputs.logits))
    losses = nonn_distillation(nonn, recipe)(without_maps)
    assert losses.keys() == {"loss", "kd"}
    expected = distillation(
        nonn(batch.images)[0], batch.teacher_outputs.logits, batch.labels, 0.7, 3
    )
    torch.testing.assert_close(losses["loss"], expected)


@pytest.mark.parametrize("beta", [0, 20])
def test_attention_goes_into_each_student_instead_of_activations_or_beside_them(nonn, batch, beta):
    recipe = RECIPE.model_copy(update={"beta": beta, "attention": 300.0})
    losses = nonn_distillation(nonn, recipe)(batch)
    maps = nonn(batch.images)[1]
    expected = attention_transfer(
        maps, [attention_map(each) for each in batch.teacher_outputs.maps]
    )
    torch.testing.assert_close(losses["attention"], expected)
    whole = losses["kd"] + 300 * expected
    if beta:
        whole = whole + beta * activation_transfer(maps, batch.teacher_outputs.maps)
    torch.testing.assert_close(losses["loss"], whole)
    assert ("transfer" in losses) == bool(beta)


def test_atkd_is_equation_1_plus_attention_of_all_groups(single, batch):
    recipe = recipe_of({"kind": "single", "network": "wrn16:4,5,6"}, attention=1000.0)
    losses = objective_of(single, recipe)(batch)
    logits, maps = single(batch.images)
    kd = distillation(logits, batch.teacher_outputs.logits, batch.labels, 0.7, 3)
    attention = attention_transfer(maps, batch.teacher_outputs.attention)
    assert len(maps) == len(batch.teacher_outputs.attention) == 3
    torch.testing.assert_close(losses["kd"], kd)
    torch.testing.assert_close(losses["attention"], attention)
    torch.testing.assert_close(losses["loss"], kd + 1000 * attention)


def test_every_weight_of_a_nonn_learns(two_shapes, batch):
    network = build_nonn(two_shapes, 3, 3, seed=1)
    recipe = RECIPE.model_copy(update={"attention": 1.0, "student_dropout": 0.5})
    nonn_distillation(network, recipe)(batch)["loss"].backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_student_dropout_hides_vectors_from_equation_1_but_not_maps_from_equation_6(nonn, batch):
    recipe = RECIPE.model_copy(update={"student_dropout": 0.5})
    losses = nonn_distillation(nonn, recipe)(batch)
    answering = students_answering(12, 2, 0.5, batch.draw)
    _, maps = nonn(batch.images)
    vectors = [global_average_pool(each) for each in maps]
    # Image by image, as a NoNN with missing boards classifies.
    logits = torch.cat(
        [
            nonn.classify(
                [v[n : n + 1] for v in vectors], answering[n].nonzero().flatten().tolist()
            )
            for n in range(12)
        ]
    )
    assert not answering.all()
    kd = distillation(logits, batch.teacher_outputs.logits, batch.labels, 0.7, 3)
    torch.testing.assert_close(losses["kd"], kd)
    torch.testing.assert_close(
        losses["transfer"], activation_transfer(maps, batch.teacher_outputs.maps), rtol=1e-6, atol=0
    )


def test_the_same_draw_hides_the_same_students_and_the_global_generator_is_not_asked(nonn, batch):
    objective = nonn_distillation(nonn, RECIPE.model_copy(update={"student_dropout": 0.5}))
    state = torch.random.get_rng_state()
    first = objective(batch)["loss"]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(objective(batch)["loss"], first)
    other = Batch(batch.images, batch.labels, batch.teacher_outputs, draw=5)
    assert not torch.equal(objective(other)["loss"], first)


def test_a_subset_answers_as_often_as_it_should():
    # Of 2 students each missing with 0.4: both 0.36, and the 0.16 of none goes to one of them.
    answering = students_answering(40_000, 2, 0.4, draw=1)
    assert answering.any(dim=1).all()
    both = answering.all(dim=1).double().mean().item()
    first_alone = (answering[:, 0] & ~answering[:, 1]).double().mean().item()
    # Six standard deviations of a share of 40,000 draws.
    assert both == pytest.approx(0.36, abs=0.015)
    assert first_alone == pytest.approx(0.24 + 0.08, abs=0.015)


@pytest.mark.parametrize(
    ("model", "losses", "expected"),
    [
        (None, {"beta": 10}, TargetSpec(((0, 2, 7), (1, 3, 4, 5)))),
        (None, {"beta": 0, "attention": 5}, TargetSpec(((0, 2, 7), (1, 3, 4, 5)))),
        (None, {"beta": 0}, TargetSpec()),
        ({"kind": "single", "network": "wrn10:4,6,9"}, {}, TargetSpec()),
        (
            {"kind": "single", "network": "wrn10:4,6,9"},
            {"attention": 5},
            TargetSpec(attention=True),
        ),
        ({"kind": "splitnet", "network": "wrn10:4,6,9", "groups": [2]}, {}, TargetSpec()),
    ],
)
def test_a_teacher_shows_what_the_losses_look_at(model, losses, expected):
    assert target_spec_of(recipe_of(model, **losses)) == expected


@pytest.mark.parametrize("group0", ["replicated", "own-board", "separate"])
def test_students_share_g0_unless_the_recipe_separates_them(group0):
    model = {"kind": "nonn", "students": STUDENTS, "group0": group0}
    network = build_network(recipe_of(model), 3)
    assert len(network.group0) == (2 if group0 == "separate" else 1)


def test_a_network_is_a_function_of_its_recipe():
    recipe = recipe_of()
    first, second = (build_network(recipe, 3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], value) for name, value in second.items())


@pytest.mark.parametrize(
    ("kind", "losses", "names"),
    [
        ("nonn_recipe", {"student_dropout": 0.4, "beta": 10}, {"loss", "kd", "transfer"}),
        ("nonn_recipe", {"beta": 0, "attention": 100}, {"loss", "kd", "attention"}),
        ("nonn_recipe", {"beta": 0}, {"loss", "kd"}),
        ("single_recipe", {"attention": 1000}, {"loss", "kd", "attention"}),
    ],
)
def test_a_killed_run_ends_with_the_same_losses(request, tiny, tmp_path, kind, losses, names):
    content = request.getfixturevalue(kind).model_dump(mode="json")
    content["distillation"] = losses
    recipe = TrainingRecipe.check(content, "this test")
    expected = train(recipe, tmp_path / "whole", tiny)
    with pytest.raises(KilledError):
        train(recipe, tmp_path / "killed", tiny, killed_at(7))
    assert train(recipe, tmp_path / "killed", tiny) == expected
    assert expected[-1].losses.keys() == names
