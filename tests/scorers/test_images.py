"""Promises of image preparation: what transformers' own Pillow processors give."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

from mergesearch.errors import CheckpointError, DataError
from mergesearch.scorers.images import array_images, file_images, preprocess, read_preprocessing

RGB = {"do_resize": True, "size": {"height": 9, "width": 7}, "do_rescale": True, "rescale_factor": 1 / 255}
NORMAL = {"do_normalize": True, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
CLIP = {"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}, "resample": 3}


def folder(path: Path, processor: dict[str, Any], channels: int = 3) -> Path:
    """A model folder with only the two files that matter here."""
    (path / "config.json").write_text(json.dumps({"num_channels": channels}))
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


def pictures(*shape: int) -> np.ndarray:
    """Random uint8 images."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ViTImageProcessorPil, {**RGB, **NORMAL}),
        (ViTImageProcessorPil, {**RGB, **NORMAL, "resample": 3}),
        (ViTImageProcessorPil, {**RGB, "do_normalize": False}),
        (ViTImageProcessorPil, {**RGB, **NORMAL, "do_resize": False}),
        (CLIPImageProcessorPil, {**RGB, **NORMAL, **CLIP}),
        (CLIPImageProcessorPil, {**RGB, **NORMAL, **CLIP, "crop_size": {"height": 5, "width": 6}}),
    ],
)
@pytest.mark.parametrize("shape", [(3, 20, 31, 3), (3, 31, 20, 3), (3, 8, 8, 3)])
def test_same_as_transformers(tmp_path: Path, kind: Any, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Resized, cropped, rescaled and normalised as transformers' Pillow processors do it."""
    images = pictures(*shape)
    how = read_preprocessing(folder(tmp_path, options))
    ours = preprocess(array_images(images, range(len(images))), len(images), how)
    theirs = kind(**options)([Image.fromarray(i) for i in images], return_tensors="np")["pixel_values"]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_grey_images_for_a_grey_model(tmp_path: Path) -> None:
    """Images (n, h, w) and (n, h, w, 1) become (n, 1, h, w), scaled as the file says."""
    processor = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5],
        "image_std": 0.25,
    }
    how = read_preprocessing(folder(tmp_path, processor, channels=1))
    images = pictures(4, 5, 6)
    expected = (images[:, None].astype(np.float64) / 255 - 0.5) / 0.25
    for given in (images, images[..., None]):
        np.testing.assert_allclose(preprocess(array_images(given, range(4)), 4, how), expected, rtol=1e-5, atol=1e-5)


def test_channels_follow_the_model(tmp_path: Path) -> None:
    """Grey images fill the three channels of a colour model; colour images become grey for a model of one."""
    grey, colour = pictures(1, 4, 4), pictures(1, 4, 4, 3)
    three = preprocess(array_images(grey, [0]), 1, read_preprocessing(folder(tmp_path, {})))
    assert all(np.array_equal(three[0, c], grey[0]) for c in range(3))
    one = preprocess(array_images(colour, [0]), 1, read_preprocessing(folder(tmp_path, {}, channels=1)))
    assert one.shape == (1, 1, 4, 4)


def test_files_are_opened_as_pictures(tmp_path: Path) -> None:
    """A PNG gives the pixels it was saved with; a broken file is named with its row."""
    pixels = pictures(6, 5, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    how = read_preprocessing(folder(tmp_path, {}))
    read = preprocess(file_images([tmp_path / "a.png"], [0]), 1, how)
    assert np.array_equal(read[0].transpose(1, 2, 0), pixels)
    with pytest.raises(DataError, match=r"row 2: cannot read image '.*b.png'"):
        preprocess(file_images([tmp_path / "a.png", tmp_path / "b.png"], [1]), 1, how)


def test_images_of_several_sizes_need_resizing(tmp_path: Path) -> None:
    """Without do_resize the second size is refused with what to do."""
    for i, side in enumerate((4, 5)):
        Image.fromarray(pictures(side, side)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"set do_resize"):
        preprocess(
            file_images([tmp_path / "0.png", tmp_path / "1.png"], [0, 1]), 2, read_preprocessing(folder(tmp_path, {}))
        )


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    """Scaling is never guessed; the processor's newer file name is read too."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config.json"):
        read_preprocessing(tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"do_rescale": True}}))
    assert read_preprocessing(tmp_path).scale == pytest.approx(1 / 255)


def test_a_processor_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Three means for a model of one channel, and a size of an unknown kind, get a sentence."""
    with pytest.raises(CheckpointError, match=r"image_mean has 3 values, config.json says num_channels 1"):
        read_preprocessing(folder(tmp_path, NORMAL, channels=1))
    with pytest.raises(CheckpointError, match=r"size .*longest_edge.* is not supported"):
        read_preprocessing(folder(tmp_path, {"do_resize": True, "size": {"shortest_edge": 4, "longest_edge": 8}}))
