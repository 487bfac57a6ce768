"""Images as a model wants them: what its processor file says, done with Pillow and numpy (torchvision is not needed).

The steps and their order are those of the Pillow image processors in transformers: resize, centre crop, rescale,
normalise.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mergesearch.errors import CheckpointError, DataError
from mergesearch.scorers.data import model_config


@dataclass(frozen=True)
class Preprocessing:
    """How uint8 images become float32 input. Sizes are (height, width); None where a step is left out.

    `shortest` resizes the shorter side and keeps the shape. `resample` is Pillow's number for the filter.
    """

    channels: int
    size: tuple[int, int] | None = None
    shortest: int | None = None
    crop: tuple[int, int] | None = None
    resample: int = Image.Resampling.BILINEAR
    scale: float | None = 1 / 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_preprocessing(model: Path) -> Preprocessing:
    """The processor of a model folder: preprocessor_config.json, or the image part of processor_config.json.

    Raises:
        CheckpointError: neither file is there, or one holds what cannot be done.
    """
    body = _processor_file(model)
    channels = int(model_config(model).get("num_channels", 3))
    size, shortest = _sizes(model, body.get("size"), "size") if body.get("do_resize") else (None, None)
    crop = _sizes(model, body.get("crop_size"), "crop_size")[0] if body.get("do_center_crop") else None
    normalise = bool(body.get("do_normalize"))
    mean = _per_channel(model, body, "image_mean", channels) if normalise else None
    std = _per_channel(model, body, "image_std", channels) if normalise else None
    scale = float(body.get("rescale_factor", 1 / 255)) if body.get("do_rescale") else None
    resample = int(body.get("resample", Image.Resampling.BILINEAR))
    return Preprocessing(channels, size, shortest, crop, resample, scale, mean, std)


def _processor_file(model: Path) -> Mapping[str, Any]:
    for name, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        file = model / name
        if not file.is_file():
            continue
        try:
            body = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{str(file)!r} is not JSON: {error}") from None
        found = body.get(part) if part else body
        if isinstance(found, dict):
            return found
    raise CheckpointError(
        f"model folder {str(model)!r} has no preprocessor_config.json, which says how images are scaled; "
        "copy the one the model was trained with"
    )


def _sizes(model: Path, given: Any, key: str) -> tuple[tuple[int, int] | None, int | None]:
    """(height, width) or the shortest edge, whichever a processor file's size says."""
    if isinstance(given, int):
        return (given, given), None
    if isinstance(given, dict) and {"height", "width"} <= set(given):
        return (int(given["height"]), int(given["width"])), None
    if isinstance(given, dict) and "shortest_edge" in given and "longest_edge" not in given:
        return None, int(given["shortest_edge"])
    raise CheckpointError(f"model folder {str(model)!r}: its image processor's {key} {given!r} is not supported")


def _per_channel(model: Path, body: Mapping[str, Any], key: str, channels: int) -> tuple[float, ...]:
    given = body.get(key, [0.5])
    values = [float(v) for v in given] if isinstance(given, list) else [float(given)]
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise CheckpointError(
            f"model folder {str(model)!r}: {key} has {len(values)} values, config.json says num_channels {channels}"
        )
    return tuple(values)


def preprocess(images: Iterable[Image.Image], count: int, how: Preprocessing) -> NDArray[np.float32]:
    """`count` images as float32 (n, channels, height, width).

    Grey images are repeated over the channels of a colour model, colour images become grey for a model of one channel.

    Raises:
        DataError: the images come out in different sizes.
    """
    pixels: NDArray[np.uint8] | None = None
    for i, image in enumerate(images):
        array = np.asarray(_fitted(image.convert("L" if how.channels == 1 else "RGB"), how))  # (h, w) or (h, w, 3)
        if pixels is None:
            pixels = np.empty((count, *array.shape), dtype=np.uint8)
        if array.shape != pixels.shape[1:]:
            raise DataError(
                f"image {i} of the split is {array.shape[:2]}, the first {pixels.shape[1:3]}; "
                "set do_resize in preprocessor_config.json, or use images of one size"
            )
        pixels[i] = array
    if pixels is None:
        return np.empty((0, how.channels, 1, 1), dtype=np.float32)
    stacked = pixels[:, None] if how.channels == 1 else pixels.transpose(0, 3, 1, 2)  # (n, c, h, w)
    values = np.ascontiguousarray(stacked, dtype=np.float32)
    if how.scale is not None:
        values *= np.float32(how.scale)
    if how.mean is not None and how.std is not None:
        values -= np.array(how.mean, dtype=np.float32)[:, None, None]
        values /= np.array(how.std, dtype=np.float32)[:, None, None]
    return values


def _fitted(image: Image.Image, how: Preprocessing) -> Image.Image:
    """Resized and cropped; Pillow's sizes are (width, height)."""
    target = how.size
    if how.shortest is not None:
        width, height = image.size
        short, long = min(width, height), max(width, height)
        longer = int(how.shortest * long / short)
        target = (longer, how.shortest) if height > width else (how.shortest, longer)
    if target is not None and image.size != (target[1], target[0]):
        image = image.resize((target[1], target[0]), Image.Resampling(how.resample))
    if how.crop is None:
        return image
    height, width = how.crop
    # Where the image is smaller than the crop, Pillow fills with black, as transformers does.
    top, left = (image.size[1] - height) // 2, (image.size[0] - width) // 2
    return image.crop((left, top, left + width, top + height))


def array_images(array: NDArray[Any], rows: Sequence[int] | NDArray[np.int64]) -> Iterable[Image.Image]:
    """Images of some rows of a uint8 array (n, h, w) or (n, h, w, c) with c of 1 or 3."""
    for row in rows:
        pixels = array[row]
        yield Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def file_images(files: Sequence[Path], rows: Sequence[int] | NDArray[np.int64]) -> Iterable[Image.Image]:
    """Images of some rows of a list of files. Raises DataError for one that cannot be read."""
    for row in rows:
        try:
            with Image.open(files[row]) as image:
                image.load()
                yield image
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"row {row + 1}: cannot read image {str(files[row])!r}: {error}") from None
