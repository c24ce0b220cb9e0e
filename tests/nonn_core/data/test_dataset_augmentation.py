import numpy as np
import pytest
import torch

from nonn_core.data.dataset import draw_shifts, shift_and_mirror
from nonn_core.networks.blueprint import ImageShape


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(before, down, right, mirrored, tall, wide):
    """Cut one image (C, H, W) out of a larger one of zeros, pixel by pixel."""
    _, height, width = before.shape
    found = np.zeros_like(before)
    for y in range(height):
        for x in range(width):
            row, column = y + down - tall, x + right - wide
            if 0 <= row < height and 0 <= column < width:
                found[:, y, width - 1 - x if mirrored else x] = before[:, row, column]
    return found


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 24), (3, 9, 7)])
def test_images_are_moved_and_mirrored_as_drawn(shape):
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(1, 256, (40, *shape), dtype=np.uint8))
    moves = draw_shifts(40, ImageShape(*shape), True, generator())
    tall, wide = max(1, shape[1] // 8), max(1, shape[2] // 8)
    for before, after, move in zip(
        pixels, shift_and_mirror(pixels, moves), moves.tolist(), strict=True
    ):
        assert np.array_equal(after.numpy(), by_hand(before.numpy(), *move, tall, wide))


def test_every_move_is_drawn_and_no_other():
    moves = draw_shifts(4000, ImageShape(3, 16, 24), True, generator())
    seen = set(map(tuple, moves.tolist()))
    assert seen == {(d, r, m) for d in range(5) for r in range(7) for m in (0, 1)}


def test_where_mirroring_is_not_allowed_nothing_is_mirrored():
    moves = draw_shifts(500, ImageShape(3, 16, 16), False, generator())
    assert not moves[:, 2].any()
    # The rest is as it would be with it.
    assert torch.equal(
        moves[:, :2], draw_shifts(500, ImageShape(3, 16, 16), True, generator())[:, :2]
    )


def test_the_middle_move_changes_nothing():
    pixels = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).reshape(2, 3, 8, 8)
    assert torch.equal(shift_and_mirror(pixels, torch.tensor([[1, 1, 0]] * 2)), pixels)


def test_moved_images_are_laid_out_channels_last():
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    after = shift_and_mirror(pixels, draw_shifts(2, ImageShape(3, 8, 8), True, generator()))
    assert after.is_contiguous(memory_format=torch.channels_last)
