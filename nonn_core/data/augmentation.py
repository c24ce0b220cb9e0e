"""Images moved by a few pixels and mirrored, as training shows them.

What is random is drawn first, on the CPU, and then applied where the images are: the draws are the
same on every device.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from nonn_core.image import Image


def drawn_moves(count: int, image: Image, mirrored: bool, generator: torch.Generator) -> Tensor:
    """Draw how each of `count` images is moved, int16 (count, 3).

    Columns: the row and the column at which it is cut out of its padded self, and whether it is
    then mirrored, which only happens where `mirrored` allows it.
    """
    down = torch.randint(2 * _reach(image.height) + 1, (count,), generator=generator)
    right = torch.randint(2 * _reach(image.width) + 1, (count,), generator=generator)
    flips = torch.randint(2, (count,), generator=generator) * mirrored
    return torch.stack([down, right, flips], dim=1).to(torch.int16)


def moved(pixels: Tensor, moves: Tensor) -> Tensor:
    """Move each image of (N, C, H, W) by up to an eighth of its size, zeros moving in.

    `moves` (N, 3) are those of `drawn_moves`, on the images' device.  The result is laid out
    channels-last.
    """
    count, _, height, width = pixels.shape
    tall, wide = _reach(height), _reach(width)
    padded = F.pad(pixels, (wide, wide, tall, tall))
    down, right, flipped = moves.long()[:, :, None].unbind(1)
    along = torch.arange(width, device=pixels.device)
    rows = down + torch.arange(height, device=pixels.device)
    columns = right + torch.where(flipped.bool(), along.flip(0), along)
    images = torch.arange(count, device=pixels.device)[:, None, None]
    # Indexing puts the image axes first: (N, H, W, C).
    found = padded[images, :, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2)


def _reach(side: int) -> int:
    return max(1, side // 8)
