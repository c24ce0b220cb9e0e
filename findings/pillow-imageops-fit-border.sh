#!/usr/bin/env bash
# Pillow 11.0.0 to 13.0.0: `ImageOps.fit` mixes what it cuts off into the border of its result.
#
# Behaviour: of a picture of three equal squares, red, green and blue, side by side, `fit` to a square
# keeps the middle one.  Where it also makes it smaller, the first column has red in it and the last one
# blue; `crop` of the same box and then `resize` gives pure green.  `Image.resize(box=...)` does the same.
# Why: the box moves the filter's centres, but the filter reads pixels beyond the box.
# What it costs: a cut "to the largest centred square" is not what its border shows; two programs that
# prepare pictures with the two forms disagree by up to an eighth of the range, in border pixels alone.
#
# Seen: red of the first column 25 of 200 with fit, 0 with crop and resize.  Fails if that changes.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cat >"$work/fit.py" <<'PY'
from PIL import Image, ImageOps

picture = Image.new("RGB", (48, 16))
for number, colour in enumerate(((200, 0, 0), (0, 200, 0), (0, 0, 200))):
    picture.paste(colour, (16 * number, 0, 16 * number + 16, 16))
fitted = ImageOps.fit(picture, (8, 8), Image.Resampling.BILINEAR)
cropped = picture.crop((16, 0, 32, 16)).resize((8, 8), Image.Resampling.BILINEAR)
print(fitted.getpixel((0, 4))[0], cropped.getpixel((0, 4))[0])
PY
python3 -m venv "$work/venv"
for version in 11.0.0 13.0.0; do
    "$work/venv/bin/python" -m pip install --quiet "pillow==$version"
    read -r fitted cropped < <("$work/venv/bin/python" "$work/fit.py")
    echo "Pillow $version: red of the first column $fitted with fit, $cropped with crop and resize"
    ((fitted > 0 && cropped == 0))
done
