import pytest

from nonn_common.errors import InputError
from nonn_core.experiments.table_results import Experiment, axes_of, row_recipe
from nonn_core.experiments.table_rows import table_design
from nonn_core.recipe import Axis, ComputeRecipe, OptimiserRecipe


def test_every_table_has_its_teacher_first_and_all_published_rows():
    for table in ("2", "3", "4", "5", "fig8"):
        found = table_design(table)
        assert found.rows[0].method == "teacher"
        assert [row.name for row in found.rows[1:]] == [row.row for row in found.published.rows]


def test_data_that_can_be_downloaded_is_the_default():
    assert table_design("2").data == "cifar10:cifar10/cifar-10-binary.tar.gz"
    assert table_design("4", "cifar-100").data == "cifar100:cifar100/cifar-100-binary.tar.gz"
    assert table_design("5").data is None


def test_chosen_rows_keep_their_order_and_the_teacher():
    found = table_design("2").only(["nonn-2s", "kd"])
    assert [row.name for row in found.rows] == ["teacher", "kd", "nonn-2s"]
    with pytest.raises(InputError, match="nonn-2s-xl"):
        table_design("2").only(["nonn-3s"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("2", "cifar-100"), "cifar-10"),
        (("2", None, "wrn22-2"), "wrn40-4 or wrn16-2"),
        (("3", None, "wrn16-2"), "wrn28-10"),
    ],
)
def test_what_is_not_laid_down(arguments, told):
    with pytest.raises(InputError, match=told):
        table_design(*arguments)


@pytest.fixture
def experiment():
    return Experiment(
        data="digits",
        images_per_class=None,
        teacher_network="wrn16-2",
        given_teacher=None,
        teacher_optimiser=OptimiserRecipe(epochs=3),
        optimiser=OptimiserRecipe(epochs=2),
        compute=ComputeRecipe(),
        seed=4,
    )


def recipes(table, experiment, folder, teacher=None):
    found = table_design(table, None, teacher)
    return {
        row.name: row_recipe(row, experiment, folder, "1x8x8", ((0, 2), (1, 3, 4)))
        for row in found.rows
        if row.method != "teacher"
    }


def test_each_method_has_its_losses_and_its_model(experiment, tmp_path):
    found = recipes("2", experiment, tmp_path, "wrn16-2") | recipes("3", experiment, tmp_path)
    losses = {
        name: (each.distillation.beta > 0, each.distillation.attention > 0)
        for name, each in found.items()
    }
    assert losses["kd"] == losses["kd-nonn-2s-xl"] == losses["splitnet-2g"] == (False, False)
    assert losses["atkd"] == losses["atkd-large"] == (False, True)
    assert losses["nonn-2s"] == losses["nonn-2s-xl"] == (True, False)
    assert found["nonn-2s"].model.group0 == "replicated"
    assert found["nonn-2s-xl"].model.group0 == "own-board"
    assert found["splitnet-4g"].model.groups == (4, 4)
    assert found["kd"].model.kind == found["atkd-large"].model.kind == "single"
    # Whatever the row, the rest is the same: honest baselines.
    assert (
        len({(each.optimiser, each.seed, each.distillation.alpha) for each in found.values()}) == 1
    )


def test_further_students_reshuffle_the_two_partitions(experiment, tmp_path):
    students = recipes("fig8", experiment, tmp_path)["nonn-8s"].model.students
    assert [one.name for one in students] == [f"s{number}" for number in range(1, 9)]
    assert [one.filters for one in students[:2]] == [(0, 2), (1, 3, 4)]
    assert sorted(students[6].filters + students[7].filters) == [0, 1, 2, 3, 4]


def test_a_splitnet_in_one_epoch_is_refused(experiment, tmp_path):
    short = experiment.model_copy(update={"optimiser": OptimiserRecipe(epochs=1)})
    with pytest.raises(InputError, match="splitnet-2g"):
        recipes("3", short, tmp_path)


def test_a_row_is_tuned_where_it_makes_a_difference():
    axes = [
        Axis.parse(f"{field}=1,2")
        for field in (
            "distillation.beta",
            "distillation.attention",
            "distillation.temperature",
            "optimiser.learning_rate",
        )
    ]
    rows = {row.name: row for row in table_design("2").rows}
    fields = {
        name: [axis.field.partition(".")[2] for axis in axes_of(row, axes)]
        for name, row in rows.items()
    }
    assert fields["kd"] == fields["kd-nonn-2s-xl"] == ["temperature", "learning_rate"]
    assert fields["atkd"] == ["attention", "temperature", "learning_rate"]
    assert fields["nonn-2s"] == ["beta", "temperature", "learning_rate"]


def test_a_folder_holds_one_experiment(experiment, tmp_path):
    experiment.init_folder(tmp_path)
    elsewhere = ComputeRecipe(device="cuda:1")
    experiment.model_copy(update={"compute": elsewhere}).init_folder(tmp_path)
    with pytest.raises(InputError, match="another experiment"):
        experiment.model_copy(update={"images_per_class": 5}).init_folder(tmp_path)
