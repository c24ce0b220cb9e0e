"""Picture files: how one becomes an image, the same for training and for the host.

A picture is turned upright as its EXIF data say, laid on paper where it is transparent, and,
where a size is wanted, cut to its largest centred square and resized.  What was done is
counted, so that commands can say it.
"""

import io
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_core.networks.blueprint import LARGEST_SIDE, ImageShape

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


_CANDIDATES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".ppm",
    ".pgm",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
)
MOST_PIXELS = 2**26
"""Pixels of a picture that is made smaller, of which each takes 3 bytes or 4, at first."""
WHITE = "#ffffff"
# Pillow cuts these to white when it converts them.
_DEEP_MODES = ("I", "F")
_GREY_MODES = ("1", "L", "LA")
# Two pictures in one file by design: the second one is a preview or the depth of the first.
_TWO_PICTURES = "MPO"
# Pillow only warns of some damage; of other it raises what its parser does.
_DAMAGED_EXIF = (Warning, struct.error, SyntaxError, ValueError, TypeError, LookupError, OSError)


def picture_suffixes() -> tuple[str, ...]:
    """Endings of the files that can be read here, as Pillow was built."""
    from PIL import Image

    known = Image.registered_extensions()
    return tuple(suffix for suffix in _CANDIDATES if suffix in known)


def is_hidden(name: PurePath) -> bool:
    """Say whether a file or folder is one that systems keep for themselves."""
    return any(part.startswith(".") and part != "." for part in name.parts)


class PictureTally:
    """Counts of pictures that were changed, and the files that were left out."""

    def __init__(self) -> None:
        self.pictures = 0
        self.left_out: list[PurePath] = []
        self._changed: Counter[str] = Counter()
        self._largest_cut = 0.0

    def note(self, change: str) -> None:
        """Count one change of one picture; a key of `_CHANGES`."""
        self._changed[change] += 1

    def note_cut(self, share: float) -> None:
        """Note which share of a picture, 0 to 1, lies outside its square."""
        self.note("cut")
        self._largest_cut = max(self._largest_cut, share)

    def warnings(self, where: str, reading: "PictureReading") -> tuple[str, ...]:
        """Sentences on files left out and pictures changed; empty where there are none."""
        size = reading.image_size
        facts = {"paper": reading.paper, "size": size, "cut": f"{100 * self._largest_cut:.0f}"}
        return (
            *self.omissions(where),
            *(
                f"{where}: {self._changed[change]} of {self.pictures} pictures "
                + sentence.format(**facts)
                for change, sentence in _CHANGES.items()
                if self._changed[change]
            ),
        )

    def omissions(self, where: str) -> tuple[str, ...]:
        """Sentence on the files of kinds that are not read here."""
        if not self.left_out:
            return ()
        kinds: dict[str, list[PurePath]] = {}
        for name in self.left_out:
            kinds.setdefault(name.suffix.lower() or "no suffix", []).append(name)
        listed = ", ".join(f"{kind} {len(names)} ({names[0]})" for kind, names in kinds.items())
        count = len(self.left_out)
        files = "1 file is" if count == 1 else f"{count} files are"
        return (f"{where}: {files} left out, of kinds that are not read here: {listed}",)


_CHANGES = {
    "transparent": "are transparent; the paper behind them is taken as {paper} "
    "(another colour: train-teacher --paper)",
    "turned": "are turned upright, as their EXIF data say",
    "exif": "have EXIF data that cannot be read; they are not turned",
    "frames": "hold several frames or pages; only the first one is read",
    "grey": "have colours that are not wanted here; they become grey",
    "cut": "are not square; their middle is kept, and up to {cut} % is cut off",
    "enlarged": "are smaller than {size}x{size} and are enlarged",
}
"""Changes that a picture may undergo, in this order, and the words for each."""


class PictureReading(Record):
    """How a picture file becomes an image.

    It is turned upright as its EXIF data say (orientation), laid on `paper` where it is
    transparent, cut to the largest centred square, and resized (bilinear with antialiasing, as
    Pillow does it).  The last two only with `image_size`.
    """

    image_size: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_SIDE,
        description="Side of the square, in pixels; null: pictures keep their size.",
    )
    paper: str = Field(
        default=WHITE,
        pattern="^#[0-9a-f]{6}$",
        description="Colour behind what is transparent, #rrggbb.",
    )
    channels: Literal[1, 3] | None = Field(
        default=None,
        description="1: grey; 3: colour; null: grey where every picture of the data set is.",
    )

    @classmethod
    def parse(cls, options: Iterable[str], where: str) -> "PictureReading":
        """Read `size=64`, `paper=beige` and `channels=3`, in any order; raises InputError."""
        found: dict[str, object] = {}
        for option in options:
            name, _, value = option.partition("=")
            if name not in _FIELDS or _FIELDS[name] in found:
                raise InputError(
                    "options of pictures",
                    where=where,
                    found=option,
                    allowed="each once: size=SIDE, paper=COLOUR, channels=1 or channels=3",
                )
            found[_FIELDS[name]] = parse_paper(value, where) if name == "paper" else _whole(value)
        return cls.check(found, where)

    @classmethod
    def of_source(cls, source: str, image: str) -> "PictureReading":
        """How the pictures of a data set became images of this shape, `3x64x64`.

        Raises InputError for options that do not exist.
        """
        _, options, _ = split_source(source)
        channels = ImageShape.parse(image).channels
        # What has other channels was not made of pictures.
        known = {"channels": channels} if channels in (1, 3) else {}
        return cls.check({**cls.parse(options, source).model_dump(), **known}, source)

    @property
    def options(self) -> str:
        """Text that `parse` reads again, without what is as usual."""
        stated = {name: getattr(self, field) for name, field in _FIELDS.items()}
        usual = {name: type(self).model_fields[field].default for name, field in _FIELDS.items()}
        return ",".join(f"{k}={value}" for k, value in stated.items() if value != usual[k])

    def decode(self, where: str, content: bytes, tally: PictureTally) -> NDArray[np.uint8]:
        """Decode a picture to uint8 (channels, H, W); `tally` counts what was done.

        Raises InputError that names `where` for what is no picture, has more than 8 bits for each
        channel, or is too large, which is known before its pixels are decoded.
        """
        from PIL import Image, UnidentifiedImageError

        no_picture = (Image.DecompressionBombError, OSError, SyntaxError, ValueError)
        try:
            with Image.open(io.BytesIO(content)) as picture:
                _refuse_deep(picture, where)
                self._refuse_large(picture.size, where)
                picture.load()
                pixels = np.asarray(self._image(picture, tally))
        except UnidentifiedImageError:
            raise InputError(
                "not a readable image: of no known kind",
                where=where,
                fix="replace or remove this file",
            ) from None
        except no_picture as error:
            raise InputError(
                f"not a readable image: {error}", where=where, fix="replace or remove this file"
            ) from None
        tally.pictures += 1
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def _refuse_large(self, size: tuple[int, int], where: str) -> None:
        """Refuse a picture of too many pixels for a network, or for this machine's memory."""
        if self.image_size is None and max(size) > LARGEST_SIDE:
            most, fix = f"{LARGEST_SIDE} on each side", "give a size, such as size=64"
        elif size[0] * size[1] > MOST_PIXELS:
            most, fix = f"{MOST_PIXELS} in all", "make it smaller, or remove it"
        else:
            return
        found = f"{size[0]}x{size[1]}"
        raise InputError("too many pixels", where=where, found=found, allowed=most, fix=fix)

    def _image(self, picture: "Picture", tally: PictureTally) -> "Picture":
        """Picture in mode L or RGB, of the wanted size."""
        from PIL import Image

        if picture.format != _TWO_PICTURES and getattr(picture, "is_animated", False):
            tally.note("frames")
        image = self._opaque(_upright(picture, tally), tally)
        if self.channels == 1 and image.mode == "RGB":
            if _has_colour(image):
                tally.note("grey")
            image = image.convert("L")
        elif self.channels == 3:
            image = image.convert("RGB")
        if self.image_size is None:
            return image
        shorter, longer = sorted(image.size)
        if shorter != longer:
            tally.note_cut(1 - shorter / longer)
        if shorter < self.image_size:
            tally.note("enlarged")
        left, top = (side // 2 - shorter // 2 for side in image.size)
        square = image.crop((left, top, left + shorter, top + shorter))
        # Not ImageOps.fit: it mixes what it cuts off into the border.
        return square.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)

    def _opaque(self, picture: "Picture", tally: PictureTally) -> "Picture":
        """Picture in mode L or RGB, on paper."""
        from PIL import Image, ImageColor

        grey = picture.mode in _GREY_MODES
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            if np.asarray(layer.getchannel("A")).min() < 255:
                tally.note("transparent")
                paper = Image.new("RGBA", layer.size, self.paper)
                picture = Image.alpha_composite(paper, layer)
                grey = grey and len(set(ImageColor.getrgb(self.paper))) == 1
        return picture.convert("L" if grey else "RGB")


AS_THEY_ARE = PictureReading()
"""Reading without a size, on white paper, grey where all pictures are."""
_FIELDS = {"size": "image_size", "paper": "paper", "channels": "channels"}


def split_source(source: str) -> tuple[str, list[str], str]:
    """Parts of `KIND,OPTION,OPTION:PATH`: kind, options, path."""
    head, _, path = source.partition(":")
    kind, *options = head.split(",")
    return kind, options, path


def parse_paper(text: str, where: str) -> str:
    """Read a colour, as HTML or CSS write it, as #rrggbb; raises InputError."""
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise InputError(
            "colour of the paper", where=where, found=text, allowed="white, beige, #f5f5dc ..."
        ) from None
    return f"#{red:02x}{green:02x}{blue:02x}"


def same_channels(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Give all images (C, H, W) three channels, unless all have one."""
    if all(len(pixels) == 1 for pixels in images):
        return list(images)
    return [np.repeat(each, 3, axis=0) if len(each) == 1 else each for each in images]


def _whole(text: str) -> object:
    """Number of a text, or the text, for the error that names it."""
    return int(text) if text.isdecimal() else text


def _refuse_deep(picture: "Picture", where: str) -> None:
    if picture.mode.startswith(_DEEP_MODES):
        raise InputError(
            "has more than 8 bits per channel",
            where=where,
            found=f"mode {picture.mode}",
            fix="convert it to 8 bits first",
        )


def _upright(picture: "Picture", tally: PictureTally) -> "Picture":
    from PIL import ExifTags, ImageOps

    try:
        with catch_warnings(action="error"):
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
            upright = ImageOps.exif_transpose(picture) if turned else picture
    except _DAMAGED_EXIF:
        tally.note("exif")
        return picture
    if turned:
        tally.note("turned")
    return upright


def _has_colour(image: "Picture") -> bool:
    pixels = np.asarray(image)
    return bool((pixels != pixels[..., :1]).any())
