import pytest
import torch

from nonn_core.data.dataset import Images
from nonn_core.distillation import accelerator
from nonn_core.distillation.batches import LiveBatches, batch_count, in_batches
from nonn_core.teacher.teacher import TeacherOutputs


@pytest.fixture
def batches(tiny):
    """Batches of 72 images whose labels are their positions."""

    def make(seed=1, size=50, run_teacher=None):
        numbered = Images(tiny.train.pixels, torch.arange(72))
        return LiveBatches(tiny, numbered, size, seed, run_teacher)

    return make


def positions(found):
    return torch.cat([batch.labels for batch in found])


def test_an_epoch_holds_each_image_once_in_an_order_of_its_own(batches):
    one, other = list(batches().epoch(0)), list(batches().epoch(1))
    assert len(batches()) == 2
    assert [len(batch.labels) for batch in one] == [50, 22]
    assert torch.equal(positions(one).sort().values, torch.arange(72))
    assert not torch.equal(positions(one), torch.arange(72))
    assert not torch.equal(positions(one), positions(other))


def test_an_epoch_is_a_function_of_seed_and_number(batches):
    list(batches().epoch(0))
    torch.manual_seed(99)
    for one, same in zip(batches().epoch(3), batches().epoch(3), strict=True):
        assert torch.equal(one.images, same.images)
        assert torch.equal(one.labels, same.labels)
        assert one.draw == same.draw
    other = list(batches(seed=2).epoch(3))
    assert not torch.equal(positions(batches().epoch(3)), positions(other))


def test_each_batch_has_a_draw_of_its_own(batches):
    draws = [batch.draw for e in range(3) for s in (0, 1) for batch in batches(s).epoch(e)]
    assert len(set(draws)) == len(draws) == 12


def test_images_are_normalised_and_channels_last(batches, tiny):
    batch = next(batches().epoch(0))
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    # What moves in is black, which is below the mean.
    assert float(batch.images.min()) == pytest.approx(float((-tiny.mean / tiny.std).min()))


def test_the_teacher_sees_what_the_student_sees(batches):
    def run_teacher(images):
        return TeacherOutputs(images.sum(dim=(2, 3)))

    for batch in batches(run_teacher=run_teacher).epoch(0):
        assert torch.equal(batch.teacher_outputs.logits, batch.images.sum(dim=(2, 3)))


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_each_batch(batches, monkeypatch, count):
    whole = list(batches().epoch(4))
    monkeypatch.setattr(accelerator, "world_size", lambda: count)
    parts = []
    for rank in range(count):
        monkeypatch.setattr(accelerator, "rank", lambda rank=rank: rank)
        parts.append(list(batches().epoch(4)))
    for number, batch in enumerate(whole):
        shares = [part[number] for part in parts]
        sizes = [len(share.labels) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        order = torch.cat([share.labels for share in shares]).argsort()
        expected = batch.labels.argsort()
        together = torch.cat([share.images for share in shares])
        assert torch.equal(together[order], batch.images[expected])
        assert len({share.draw for share in shares}) == count


def test_a_batch_smaller_than_the_processes_is_everybodys(batches, monkeypatch):
    monkeypatch.setattr(accelerator, "world_size", lambda: 5)
    monkeypatch.setattr(accelerator, "rank", lambda: 4)
    # 72 images in batches of 23: the last one has three.
    sizes = [len(batch.labels) for batch in batches(size=23).epoch(0)]
    assert sizes == [4, 4, 4, 3]


@pytest.mark.parametrize(
    ("images", "size", "sizes"),
    [
        (72, 50, [50, 22]),
        (100, 50, [50, 50]),
        (101, 50, [50, 51]),
        (51, 50, [51]),
        (7, 50, [7]),
        (1, 50, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_last_single_image_joins_the_batch_before_it(images, size, sizes):
    parts = in_batches(torch.arange(images), size)
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), torch.arange(images))
    assert batch_count(images, size) == len(sizes)
