"""An expert whose task vector is noise of the true one's size: what a search gains on it, it did not gain from skill.

Control of "The Appeal and Reality of Recycling LoRAs with Adaptive Merging" (arXiv:2602.12323): random-valued experts
often do as well as real ones, since tuning many coefficients on labels is fine-tuning in disguise.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError

_CHUNK = 1 << 22  # entries drawn at a time
_DONE = ".random_expert"  # written last, with what it was made from


def write_random_expert(
    base: Checkpoint, expert: Checkpoint, folder: Path, seed: int, is_head: Callable[[str], bool]
) -> Path:
    """Write a checkpoint like `expert` whose every merged tensor is the base's plus Gaussian noise with the norm of
    that tensor's task vector. Heads, buffers of whole numbers and all other files are the expert's own.

    The noise is drawn from (seed, tensor name): the same call gives the same bytes. A folder that holds the result
    already is left alone. One weight file is in memory at a time.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    made_from = hashlib.sha256(f"{base.digest} {expert.digest} {seed}".encode()).hexdigest()
    mark = folder / _DONE
    if mark.is_file() and mark.read_text(encoding="utf-8") == made_from:
        return folder
    if folder.exists() and not mark.is_file():
        raise CheckpointError(f"{folder}: is there already and was not made as a random expert; move it away")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text("unfinished", encoding="utf-8")
        _copy_others(expert, folder)
        for file in sorted({info.file for info in expert.headers.values()}):
            names = [name for name, info in expert.headers.items() if info.file == file]
            tensors = {name: _tensor(base, expert, name, seed, is_head) for name in names}
            save_file(tensors, folder / file.name, metadata={"format": "pt"})
        mark.write_text(made_from, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written ({error}); free some space, or leave this control"
        ) from None
    return folder


def _copy_others(expert: Checkpoint, folder: Path) -> None:
    weights = {info.file for info in expert.headers.values()}
    for file in expert.folder.iterdir():
        if file.is_file() and file not in weights and file.name != _DONE:
            shutil.copy2(file, folder / file.name)


def _tensor(base: Checkpoint, expert: Checkpoint, name: str, seed: int, is_head: Callable[[str], bool]) -> torch.Tensor:
    own = expert.tensor(name)
    if is_head(name) or name not in base.headers or not own.is_floating_point() or own.shape != base.shape(name):
        return own.clone()
    start = base.tensor(name).double()
    norm = float((own.double() - start).norm())
    digest = hashlib.sha256(name.encode()).digest()
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *digest[:8]])))
    noise = torch.empty(own.numel(), dtype=torch.float64)
    for at in range(0, own.numel(), _CHUNK):
        count = min(_CHUNK, own.numel() - at)
        noise[at : at + count] = torch.from_numpy(generator.standard_normal(count))
    length = float(noise.norm())
    return (start + (noise * (norm / length if length else 0.0)).view(own.shape)).to(own.dtype)
