from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from nonn_core.accuracy_report import Evaluation
from nonn_core.distillation.construction import build_network
from nonn_core.distillation.loop import accuracy_pct, student_vectors
from nonn_core.distillation.run_evaluation import evaluate, evaluate_teacher
from nonn_core.feature_layer import FeatureMoments
from nonn_core.networks.modules import build_nonn
from nonn_core.recipe import TrainingRecipe


def recipe_of(students, like):
    """Return the recipe `like` with this many equal students of one filter each."""
    content = like.model_dump(mode="json")
    content["model"]["students"] = [
        {"name": f"student {k}", "network": "wrn10:4,5,6", "filters": [k]} for k in range(students)
    ]
    return TrainingRecipe.check(content, "this test")


def with_statistics(network, tiny):
    """Let the normalisations see the training images, so that students differ."""
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(tiny.normalised(tiny.train.pixels[::2]))
    return network.eval()


@pytest.fixture(scope="module")
def three(nonn_recipe, tiny):
    recipe = recipe_of(3, nonn_recipe)
    return recipe, with_statistics(build_network(recipe, 3), tiny)


def test_every_subset_of_students_is_measured_once(three, tiny):
    recipe, network = three
    result = evaluate(network, recipe, tiny)
    names = ["student 0", "student 1", "student 2"]
    expected = [s for size in (1, 2, 3) for s in combinations(names, size)]
    assert [subset.students for subset in result.subsets] == expected
    assert len(expected) == 2**3 - 1
    assert result.data == tiny.source
    assert result.images == 24


def test_the_whole_is_the_accuracy_of_the_network(three, tiny):
    recipe, network = three
    result = evaluate(network, recipe, tiny)
    direct = accuracy_pct(network, tiny, tiny.test)
    assert result.accuracy_pct == result.subsets[-1].accuracy_pct == pytest.approx(direct)


def test_what_is_missing_is_imputed_where_moments_are_known(three, tiny):
    """Each subset by the ridge regression of the others; all students answer as they did."""
    recipe, network = three
    plain = evaluate(network, recipe, tiny)
    features = torch.cat(student_vectors(network, tiny, tiny.train), dim=1).numpy()
    tested = torch.cat(student_vectors(network, tiny, tiny.test), dim=1).numpy()
    network.moments = moments = FeatureMoments.of(features, [1, 1, 1])
    try:
        found = evaluate(network, recipe, tiny)
    finally:
        network.moments = None
    weight, bias = network.fc.weight.detach().numpy(), network.fc.bias.detach().numpy()
    for before, after in zip(plain.subsets, found.subsets, strict=True):
        came = [int(name.split()[1]) for name in after.students]
        gone = [k for k in range(3) if k not in came]
        told = np.linalg.pinv(moments.covariance[np.ix_(came, came)])
        told = moments.covariance[np.ix_(gone, came)] @ told
        filled = tested.copy()
        filled[:, gone] = moments.mean[gone] + (tested[:, came] - moments.mean[came]) @ told.T
        named = (filled @ weight.T + bias).argmax(axis=1)
        right = 100 * (named == tiny.test.labels.numpy()).mean()
        assert after.accuracy_pct == pytest.approx(right)
        assert after.zero_filled_pct == before.accuracy_pct == before.zero_filled
    assert found.accuracy_pct == plain.accuracy_pct
    assert found.class_accuracy == plain.class_accuracy


def test_a_subset_is_the_network_with_the_other_vectors_zeroed(three, tiny):
    recipe, network = three
    result = evaluate(network, recipe, tiny)
    pixels = tiny.normalised(tiny.test.pixels)
    with torch.no_grad():
        vectors = [student(pixels) for student in network.deployed()]
        for subset in result.subsets:
            zeroed = [
                v if f"student {k}" in subset.students else v * 0 for k, v in enumerate(vectors)
            ]
            logits = torch.cat(zeroed, dim=1) @ network.fc.weight.T + network.fc.bias
            right = (logits.argmax(dim=1) == tiny.test.labels).sum().item()
            assert subset.accuracy_pct == pytest.approx(100 * right / 24)


def test_only_test_images_are_touched(three, tiny):
    recipe, network = three
    result = evaluate(network, recipe, tiny)
    wrong = replace(tiny, train=tiny.train.take(torch.arange(2)))
    assert evaluate(network, recipe, wrong) == result


def test_an_undivided_network_has_no_subsets(single_recipe, tiny):
    network = build_network(single_recipe, 3)
    result = evaluate(network, single_recipe, tiny)
    assert result.subsets == ()
    assert result.accuracy_pct == pytest.approx(accuracy_pct(network, tiny, tiny.test))


def test_a_teacher_is_measured_on_the_test_images(teacher, tiny):
    result = evaluate_teacher(teacher, tiny)
    logits, _ = teacher(tiny.normalised(tiny.test.pixels))
    right = (logits.argmax(dim=1) == tiny.test.labels).sum().item()
    assert result.accuracy_pct == pytest.approx(100 * right / 24)
    assert (result.data, result.images, result.subsets) == (tiny.source, 24, ())


def test_beyond_twelve_students_only_the_whole_is_measured(nonn_recipe, two_shapes, tiny):
    recipe = recipe_of(13, nonn_recipe)
    result = evaluate(build_network(recipe, 3), recipe, tiny)
    assert [len(subset.students) for subset in result.subsets] == [13]
    assert result.accuracy_pct == result.subsets[0].accuracy_pct


def test_many_batches_are_one_data_set(nonn_recipe, tiny):
    recipe = recipe_of(2, nonn_recipe)
    network = with_statistics(build_network(recipe, 3), tiny)
    many = replace(tiny, test=tiny.test.take(torch.arange(24 * 22) % 24))
    seen = []
    result = evaluate(network, recipe, many, lambda *told: seen.append(told))
    once = evaluate(network, recipe, tiny)
    assert result.images == 528
    assert [s.accuracy_pct for s in result.subsets] == [s.accuracy_pct for s in once.subsets]
    assert seen == [("evaluating", done, 528) for done in (512, 528)]


def test_an_evaluation_survives_its_file(three, tiny, tmp_path):
    recipe, network = three
    result = evaluate(network, recipe, tiny)
    result.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == result


def test_a_network_in_training_mode_is_evaluated_as_it_will_be_deployed(three, tiny):
    recipe, network = three
    expected = evaluate(network, recipe, tiny)
    assert evaluate(network.train(), recipe, tiny) == expected


def test_a_student_alone_is_no_better_than_its_filters(two_shapes, nonn_recipe, tiny):
    # A student whose vector is always zero adds nothing: the subset without it is the whole.
    network = with_statistics(build_nonn(two_shapes, 3, 3, seed=0), tiny)
    with torch.no_grad():
        norm = network.heads[1].fconv[1]
        norm.weight.zero_()
        norm.bias.fill_(-1)
    recipe = nonn_recipe
    result = evaluate(network, recipe, tiny)
    left, _, whole = result.subsets
    assert left.students == ("left",)
    assert left.accuracy_pct == whole.accuracy_pct
