import pytest
import torch

from nonn_core.data.dataset import Images
from nonn_core.distillation.accelerator import ON_CPU
from nonn_core.distillation.batches import CachedBatches, LiveBatches
from nonn_core.distillation.output_cache import TeacherRunner, concatenate
from nonn_core.teacher.teacher import TargetSpec

VIEWS = 3


class Counting:
    """Teaches, and counts the images it is shown."""

    def __init__(self, run_teacher):
        self.run_teacher, self.images = run_teacher, 0

    def __call__(self, images):
        self.images += len(images)
        return self.run_teacher(images)


@pytest.fixture
def teaching(teacher):
    return Counting(TeacherRunner(teacher, TargetSpec(((0, 2, 7), (1, 3)), attention=True), ON_CPU))


@pytest.fixture
def batches(tiny, teaching, tmp_path):
    """Batches of 72 images whose labels are their positions."""

    def make(seed=5, views=VIEWS, name="lessons-0.bin"):
        numbered = Images(tiny.train.pixels, torch.arange(72))
        return CachedBatches(tiny, numbered, 14, seed, teaching, views, tmp_path / name, "mine")

    return make


def images_by_position(made, epoch):
    """Return all images of an epoch, in the order of the data set."""
    found = list(made.epoch(epoch))
    order = torch.cat([batch.labels for batch in found]).argsort()
    return torch.cat([batch.images for batch in found])[order]


def test_lessons_are_those_of_the_images_shown(batches, teaching):
    for batch in batches().epoch(4):
        expected = teaching.run_teacher(batch.images)
        torch.testing.assert_close(
            batch.teacher_outputs.logits, expected.logits, rtol=1e-4, atol=1e-5
        )
        for kept, exact in zip(
            [*batch.teacher_outputs.maps, *batch.teacher_outputs.attention],
            [*expected.maps, *expected.attention],
            strict=True,
        ):
            torch.testing.assert_close(kept.float(), exact, rtol=2**-8, atol=1e-5)


def test_the_teacher_sees_each_view_once(batches, teaching):
    made = batches()
    assert teaching.images == 0
    for epoch in range(7):
        list(made.epoch(epoch))
    # One more tells the shape of a lesson; and again where the file is opened anew.
    assert teaching.images == 72 * VIEWS + 1
    list(batches().epoch(0))
    assert teaching.images == 72 * VIEWS + 2


def test_as_many_epochs_as_views_show_each_image_in_each_view(batches):
    made = batches()
    epochs = [images_by_position(made, epoch) for epoch in range(2 * VIEWS)]
    for image in range(72):
        shown = [epoch[image] for epoch in epochs]
        views = torch.unique(torch.stack(shown[:VIEWS]), dim=0)
        # Two of an image's views may be the same one by chance.
        assert len(views) == len(torch.unique(made._moves[image::72], dim=0))
        for epoch in range(VIEWS):
            assert torch.equal(shown[epoch], shown[epoch + VIEWS])


def test_an_epoch_mixes_views(batches):
    turns = batches()._first_views
    assert set(turns.tolist()) == set(range(VIEWS))


def test_a_view_is_a_function_of_seed_view_and_image(batches):
    few, many = batches(), batches(views=5)
    assert torch.equal(few._moves, many._moves[: 72 * VIEWS])
    assert not torch.equal(few._moves, batches(seed=6)._moves)


def test_an_epoch_is_an_epoch(batches, tiny):
    made = batches()
    live = LiveBatches(tiny, made.images, 14, 5)
    assert len(made) == len(live) == 6
    for epoch in (0, 2):
        cached = [(batch.labels.tolist(), batch.draw) for batch in made.epoch(epoch)]
        # Same order and draws as without views; only the views differ.
        assert cached == [(batch.labels.tolist(), batch.draw) for batch in live.epoch(epoch)]


def test_teaching_in_pieces_is_teaching(teacher, tiny):
    targets = TargetSpec(((0, 5),), attention=True)
    images = tiny.normalised(tiny.train.pixels)
    whole = teacher.outputs(images, targets)
    pieces = concatenate([teacher.outputs(part, targets) for part in torch.split(images, 30)])
    torch.testing.assert_close(pieces.logits, whole.logits)
    torch.testing.assert_close(pieces.maps[0], whole.maps[0])
    for one, other in zip(pieces.attention, whole.attention, strict=True):
        torch.testing.assert_close(one, other)
