"""Pictures as people have them: transparent, turned, grey, of unlike sizes, of unknown kinds."""

import io
import tarfile

import numpy as np
import pytest
from made_bundle import make_bundle
from PIL import Image as Picture
from PIL.PngImagePlugin import PngImageFile

from boards.host.session import folder_images
from nonn_common.errors import InputError
from nonn_core.data import files, picture
from nonn_core.data.dataset import load_dataset
from nonn_core.data.picture import PictureReading, PictureTally, picture_suffixes
from nonn_core.data.sources import read_source, with_picture_options

LETTER = np.zeros((8, 8), np.uint8)
LETTER[2:6, 3] = 255
"""Alpha of a vertical stroke; the ink itself is 0 everywhere, as drawing programs write it."""


def saved(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def ink(mode, alpha=LETTER):
    """Black ink on transparent paper."""
    layer = Picture.merge("LA", [Picture.new("L", alpha.shape[::-1]), Picture.fromarray(alpha)])
    if mode != "P":
        return saved(layer.convert(mode))
    palette = Picture.fromarray((alpha == 0).astype(np.uint8))
    palette.putpalette([0, 0, 0, 0, 0, 0])
    return saved(palette, transparency=1)


def decoded(content, **fields):
    tally = PictureTally()
    reading = PictureReading(**fields)
    return reading.decode("here", content, tally), tally.warnings("here", reading)


def write_folder(root, content):
    """Write a data set of two classes: `content(number)` of 12 pictures."""
    number = 0
    for part, each in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for k in range(each):
                (root / part / name / f"{k}.png").write_bytes(content(number))
                number += 1
    return root


def noise(number, mode="L", size=(8, 8)):
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    return saved(Picture.fromarray(pixels))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_ink_on_transparent_paper_is_black_on_white(mode):
    pixels, warnings = decoded(ink(mode))
    assert len(pixels) == (1 if mode == "LA" else 3)
    assert np.array_equal(pixels, np.broadcast_to(255 - LETTER, pixels.shape))
    assert warnings == (
        "here: 1 of 1 pictures are transparent; the paper behind them is taken as #ffffff "
        "(another colour: train-teacher --paper)",
    )


def test_half_transparent_ink_lets_half_of_the_paper_through():
    pixels, _ = decoded(ink("LA", np.full((8, 8), 128, np.uint8)))
    assert set(pixels.flat) == {127}


@pytest.mark.parametrize(("mode", "channels"), [("LA", 3), ("RGBA", 3)])
def test_paper_has_the_colour_that_is_asked_for(mode, channels):
    pixels, _ = decoded(ink(mode), paper="#f5f5dc")
    assert pixels[:, 0, 0].tolist() == [0xF5, 0xF5, 0xDC]
    assert pixels[:, 3, 3].tolist() == [0, 0, 0]
    assert len(pixels) == channels


def test_an_opaque_picture_with_an_alpha_channel_is_as_it_was():
    pixels, warnings = decoded(saved(Picture.new("RGBA", (8, 8), (1, 2, 3, 255))))
    assert pixels[:, 5, 5].tolist() == [1, 2, 3]
    assert warnings == ()


def test_drawings_on_transparent_paper_are_a_data_set(tmp_path):
    drawings = [ink("RGBA", np.roll(LETTER, k, axis=1)) for k in range(8)] * 2
    found = load_dataset(f"imagefolder:{write_folder(tmp_path, drawings.__getitem__)}")
    assert found.train.pixels.float().mean() == pytest.approx(255 * 60 / 64)
    assert [text.split("; ")[0] for text in found.warnings] == [
        f"{tmp_path}: 12 of 12 pictures are transparent"
    ]


def test_images_that_are_all_alike_are_refused(tmp_path):
    white_ink = saved(Picture.new("RGBA", (8, 8), (255, 255, 255, 9)))
    write_folder(tmp_path, lambda _: white_ink)
    with pytest.raises(InputError, match="all training images are alike") as caught:
        load_dataset(f"imagefolder:{tmp_path}")
    assert caught.value.found == "8 images with values 255 to 255"
    assert "12 of 12 pictures are transparent" in str(caught.value)
    load_dataset(f"imagefolder:{write_folder(tmp_path / 'other', noise)}")


def test_test_images_that_are_all_alike_are_refused(tmp_path):
    write_folder(tmp_path, lambda number: noise(min(number, 8)))
    with pytest.raises(InputError, match="all test images are alike"):
        load_dataset(f"imagefolder:{tmp_path}")


UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: lambda stored: np.rot90(stored, 1),
}
"""How a picture is seen, by its orientation (EXIF 2.32, tag 0x0112)."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_picture_is_turned_as_its_exif_data_say(orientation, kind):
    stored = np.random.default_rng(0).integers(0, 256, (5, 9), dtype=np.uint8)
    picture, exif = Picture.fromarray(stored), Picture.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels, warnings = decoded(saved(picture, kind, exif=exif, **options))
    assert np.array_equal(pixels[0], UPRIGHT[orientation](stored))
    # Pillow itself turns TIFF when it opens it.
    assert len(warnings) == (orientation > 1 and kind != "TIFF")


def test_exif_data_that_are_damaged_turn_nothing_and_are_said():
    content = saved(Picture.new("L", (8, 9), 7), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff")
    pixels, warnings = decoded(content)
    assert pixels.shape == (1, 9, 8)
    assert warnings == (
        "here: 1 of 1 pictures have EXIF data that cannot be read; they are not turned",
    )


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_unknown_kinds_are_counted_and_named(tmp_path, packed):
    root = write_folder(tmp_path / "data", noise)
    for name in ("train/a/x.HEIC", "train/b/y.heic", "test/a/notes.txt", "README.md"):
        (root / name).write_bytes(b"x")
    (root / "train" / "a" / ".hidden.txt").write_bytes(b"x")
    if packed:
        with tarfile.open(tmp_path / "data.tar", "w") as tar:
            for part in ("test", "train", "README.md"):
                tar.add(root / part, part)
        root = tmp_path / "data.tar"
    found = load_dataset(f"imagefolder:{root}")
    (warning,) = found.warnings
    assert warning.startswith(f"{root}: 3 files are left out, of kinds that are not read here: ")
    assert ".heic 2 (train/a/x.HEIC)" in warning
    assert ".txt 1 (test/a/notes.txt)" in warning


@pytest.mark.parametrize("packed", [False, True])
def test_a_class_of_nothing_but_unknown_kinds_is_refused_with_their_names(tmp_path, packed):
    root = write_folder(tmp_path / "data", noise)
    for part in ("train", "test"):
        (root / part / "photos").mkdir()
        (root / part / "photos" / "1.HEIC").write_bytes(b"x")
    if packed:
        with tarfile.open(tmp_path / "data.tar", "w") as tar:
            for path in sorted(root.rglob("*.*")):
                tar.add(path, path.relative_to(root))
        root = tmp_path / "data.tar"
    with pytest.raises(InputError, match=r"no image in train/.*photos.*\.heic 2 \(") as caught:
        load_dataset(f"imagefolder:{root}")
    assert caught.value.found == "photos"


def test_webp_is_left_out_and_named_where_the_library_lacks_it(tmp_path, monkeypatch):
    root = write_folder(tmp_path, noise)
    (root / "train" / "a" / "x.webp").write_bytes(noise(99))
    Picture.init()
    lacking = {end: kind for end, kind in Picture.EXTENSION.items() if kind != "WEBP"}
    assert ".webp" in picture_suffixes()
    monkeypatch.setattr(Picture, "EXTENSION", lacking)
    assert ".webp" not in picture_suffixes()
    found = load_dataset(f"imagefolder:{root}")
    assert len(found.train) == 8
    assert found.warnings[0].endswith("not read here: .webp 1 (train/a/x.webp)")


def test_grey_pictures_stay_grey_where_all_are(tmp_path):
    grey = load_dataset(f"imagefolder:{write_folder(tmp_path / 'grey', noise)}")
    assert str(grey.image) == "1x8x8"
    assert np.array_equal(
        grey.train.pixels[0, 0], np.asarray(Picture.open(tmp_path / "grey/train/a/0.png"))
    )
    assert grey.mean.shape == (1, 1, 1)
    mixed = write_folder(
        tmp_path / "mixed", lambda number: noise(number, "RGB" if number == 3 else "L")
    )
    assert str(load_dataset(f"imagefolder:{mixed}").image) == "3x8x8"


def test_grey_pictures_become_colour_for_what_was_made_for_colour(tmp_path):
    source = f"imagefolder:{write_folder(tmp_path / 'grey', noise)}"
    usual = PictureReading.of_source(source, "3x8x8")
    found = load_dataset(source, usual=usual)
    assert str(found.image) == "3x8x8"
    assert (found.train.pixels[:, 0] == found.train.pixels[:, 2]).all()
    named = f"imagefolder,channels=3:{tmp_path / 'grey'}"
    assert str(load_dataset(named).image) == "3x8x8"


def test_colours_that_become_grey_are_said():
    red = saved(Picture.new("RGB", (8, 8), (255, 0, 0)))
    pixels, warnings = decoded(red, channels=1)
    # ITU-R 601: 0.299 of red.
    assert set(pixels.flat) == {76}
    assert warnings == (
        "here: 1 of 1 pictures have colours that are not wanted here; they become grey",
    )
    assert decoded(saved(Picture.new("RGB", (8, 8), (9, 9, 9))), channels=1)[1] == ()


def thirds(width, height):
    """Red, green and blue, each a third of the longer side."""
    pixels = np.zeros((24, 3), np.uint8)
    for k in range(3):
        pixels[8 * k : 8 * k + 8, k] = 200
    wide = np.broadcast_to(pixels, (8, 24, 3))
    picture = Picture.fromarray(
        np.ascontiguousarray(wide if width > height else wide.swapaxes(0, 1))
    )
    return saved(picture.resize((width, height), Picture.Resampling.NEAREST))


@pytest.mark.parametrize("size", [(24, 8), (48, 16), (8, 24), (240, 80), (12, 4)])
def test_a_photo_is_cut_to_its_middle_square_and_resized(size):
    pixels, warnings = decoded(thirds(*size), image_size=8)
    assert pixels.shape == (3, 8, 8)
    assert [sorted(set(channel.flat)) for channel in pixels] == [[0], [200], [0]]
    assert warnings[0] == (
        "here: 1 of 1 pictures are not square; their middle is kept, and up to 67 % is cut off"
    )
    assert len(warnings) == 1 + (min(size) < 8)


def test_halving_a_photo_means_over_its_pixels():
    columns = np.tile(np.array([0, 0, 200, 200] * 4, np.uint8), (16, 1))
    pixels, _ = decoded(saved(Picture.fromarray(columns)), image_size=8)
    # Bilinear with antialiasing: weights 1, 3, 3, 1 eighths over four pixels.
    assert pixels[0, 4, 2:6].tolist() == [50, 150, 50, 150]


def test_a_picture_of_several_frames_is_said():
    frames = [Picture.fromarray(np.full((8, 8), k, np.uint8)) for k in (10, 200)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    pixels, warnings = decoded(content)
    assert set(pixels.flat) == {10}
    assert warnings == (
        "here: 1 of 1 pictures hold several frames or pages; only the first one is read",
    )


def sizes(number):
    return noise(number, "RGB", (20 + 3 * number, 40 - 2 * number))


def test_photos_of_unlike_sizes_need_a_size_and_the_error_says_so(tmp_path):
    write_folder(tmp_path, sizes)
    with pytest.raises(InputError, match=r"same size.*--image-size 64"):
        load_dataset(f"imagefolder:{tmp_path}")
    found = load_dataset(f"imagefolder,size=16:{tmp_path}")
    assert str(found.image) == "3x16x16"
    assert found.reading == PictureReading(image_size=16, channels=3)


@pytest.mark.parametrize("paper", ["white", "beige"])
def test_the_host_reads_a_folder_as_training_did(tmp_path, paper):
    def drawing(number):
        alpha = np.random.default_rng(number).integers(0, 256, (9, 12 + number), dtype=np.uint8)
        return ink("RGBA", alpha)

    root = write_folder(tmp_path / "data", drawing)
    found = read_source(with_picture_options(f"imagefolder:{root}", 8, paper))
    bundle = make_bundle(tmp_path / "bundle", (4,), image=(3, 8, 8)).model_copy(
        update={"pictures": found.reading}
    )
    (root / "train" / "a" / "x.heic").write_bytes(b"x")
    sent = folder_images(bundle, root / "train" / "a")
    for image, expected in zip(sent.images, found.train.pixels, strict=False):
        assert np.array_equal(image.pixels[0], expected)
    first, second, *_ = sent.warnings()
    assert first.endswith("1 file is left out, of kinds that are not read here: .heic 1 (x.heic)")
    assert "4 of 4 pictures are transparent" in second


def test_a_bundle_without_a_word_on_pictures_reads_them_in_its_channels(tmp_path):
    (tmp_path / "a.png").write_bytes(noise(0))
    bundle = make_bundle(tmp_path / "bundle", (4,), image=(3, 8, 8))
    (image,) = folder_images(bundle, tmp_path).images
    assert image.pixels.shape == (1, 3, 8, 8)
    (tmp_path / "b.png").write_bytes(noise(0, "L", (9, 9)))
    with pytest.raises(InputError, match=r"b\.png: images of another shape.*--image-size"):
        list(folder_images(bundle, tmp_path).images)


@pytest.mark.parametrize(
    ("typed", "source"),
    [
        ((None, None), "imagefolder:a,b:c"),
        ((64, None), "imagefolder,size=64:a,b:c"),
        ((64, "white"), "imagefolder,size=64:a,b:c"),
        ((None, "beige"), "imagefolder,paper=#f5f5dc:a,b:c"),
    ],
)
def test_options_are_part_of_the_source(typed, source):
    assert with_picture_options("imagefolder:a,b:c", *typed) == source
    assert PictureReading.of_source(source, "3x8x8") == PictureReading(
        image_size=typed[0], paper="#f5f5dc" if typed[1] == "beige" else "#ffffff", channels=3
    )


@pytest.mark.parametrize(
    ("source", "size", "paper", "text"),
    [
        ("digits", 64, None, "--image-size and --paper are for pictures"),
        ("cifar10:x", None, "white", "--image-size and --paper are for pictures"),
        ("imagefolder,size=32:x", 64, None, "each once"),
        ("imagefolder:x", 0, None, "greater than or equal to 1"),
        ("imagefolder:x", None, "paperish", "colour of the paper"),
        ("imagefolder,side=32:x", 64, None, "each once: size=SIDE"),
        ("imagefolder,size=big:x", None, "white", "field image_size"),
        ("imagefolder,channels=2:x", None, "white", "field channels"),
    ],
)
def test_what_is_wrong_with_options_is_said(source, size, paper, text):
    with pytest.raises(InputError, match=text):
        with_picture_options(source, size, paper)


def test_a_picture_is_looked_at_before_it_is_decoded(monkeypatch):
    """Its head says its size; with low bounds, as large ones take memory."""
    content = noise(0, size=(40, 30))

    def fails(_):
        raise AssertionError("its pixels were decoded")

    monkeypatch.setattr(PngImageFile, "load", fails)
    monkeypatch.setattr(picture, "LARGEST_SIDE", 32)
    with pytest.raises(InputError, match=r"here: too many pixels.*40x30.*32 on each.*size=64"):
        decoded(content)
    monkeypatch.setattr(picture, "MOST_PIXELS", 1_000)
    with pytest.raises(InputError, match=r"here: too many pixels.*40x30.*1000 in all"):
        decoded(content, image_size=8)


def test_a_file_of_an_archive_is_read_up_to_a_bound(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "photos", noise)
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as tar:
        tar.add(folder, ".")
    monkeypatch.setattr(files, "MOST_BYTES", 50)
    with pytest.raises(InputError, match=r"photos.tar.gz: .*png: too large a file.*up to 50"):
        load_dataset(f"imagefolder:{tmp_path / 'photos.tar.gz'}")
