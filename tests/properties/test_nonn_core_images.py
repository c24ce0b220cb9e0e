"""Damaged images and random shifts."""

import io
import warnings

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from nonn_common.errors import InputError
from nonn_core.data.dataset import draw_shifts, shift_and_mirror
from nonn_core.data.sources import read_image_folder
from nonn_core.distillation.loop import learning_rate
from nonn_core.networks.blueprint import ImageShape
from nonn_core.recipe import OptimiserRecipe


def encoded(kind, label=0):
    pixels = np.random.default_rng(label).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Picture.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


KINDS = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "GIF": "gif", "PPM": "ppm", "WEBP": "webp"}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_a_damaged_image_is_read_or_named(tmp_path_factory, kind, data):
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.integers(1, len(content)))
    folder = tmp_path_factory.mktemp("damaged")
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (folder / place).mkdir(parents=True)
        (folder / place / "0.png").write_bytes(encoded("PNG"))
    name = f"1.{KINDS[kind]}"
    (folder / "train/b" / name).write_bytes(bytes(content[:keep]))
    try:
        with warnings.catch_warnings():
            # Pillow warns of oddities that it can live with.
            warnings.simplefilter("ignore")
            found = read_image_folder(str(folder))
    except InputError as error:
        assert f"train/b/{name}" in str(error)
    else:
        assert found.train[0].shape == (3, 3, 6, 5)


@given(st.integers(8, 40), st.integers(8, 40), st.integers(0, 1000))
def test_a_shift_keeps_the_shape_and_moves_in_nothing_but_zeros(height, width, seed):
    pixels = torch.full((5, 2, height, width), 9, dtype=torch.uint8)
    image, generator = ImageShape(2, height, width), torch.Generator().manual_seed(seed)
    after = shift_and_mirror(pixels, draw_shifts(5, image, True, generator))
    assert after.shape == pixels.shape
    assert after.dtype == torch.uint8
    assert set(after.unique().tolist()) <= {0, 9}
    rows = after.amax(dim=(1, 3)).bool().sum(dim=1)
    columns = after.amax(dim=(1, 2)).bool().sum(dim=1)
    for side, seen in ((height, rows), (width, columns)):
        assert int(seen.min()) >= side - side // 8


@given(st.integers(1, 3000), st.floats(1e-4, 10))
def test_the_learning_rate_rises_to_the_top_and_then_falls(steps, top):
    recipe = OptimiserRecipe(epochs=1, learning_rate=top)
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    highest = rates.index(max(rates))
    assert max(rates) <= top * (1 + 1e-12)
    assert min(rates) > 0
    assert rates[: highest + 1] == sorted(rates[: highest + 1])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)
    assert highest <= max(1, round(steps / 10))
