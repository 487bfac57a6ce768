"""Reading LoRA adapters in PEFT's format, and finding what they change in a base."""

import json
import math
from pathlib import Path

import pytest
import torch
from adapters import random_factors, write_adapter
from safetensors.torch import load_file, save_file

from mergesearch.checkpoints.adapted import adapted_names, load_adapted, targets
from mergesearch.checkpoints.adapter import AdapterFolder, LowRank, open_expert
from mergesearch.checkpoints.compare import differences
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import CheckpointError

SHAPES = {"model.layers.0.q_proj": (6, 8), "model.layers.1.up_proj": (12, 8)}


def write_base(folder: Path, shapes: dict[str, tuple[int, ...]] | None = None, **tensors: torch.Tensor) -> Checkpoint:
    """A folder of random weights, named after modules."""
    folder.mkdir(parents=True)
    found = {f"{module}.weight": torch.randn(shape) for module, shape in (shapes or SHAPES).items()} | tensors
    save_file(found, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "test"}))
    return Checkpoint.open(folder)


def loaded(adapter: AdapterFolder, base: Checkpoint) -> dict[str, LowRank]:
    """All that an adapter changes."""
    return dict(load_adapted(adapter, base, "expert 'a'", {n: base.tensor(n) for n in base.names}))


def test_a_change_is_alpha_over_r_times_the_product(tmp_path: Path) -> None:
    """Under the base's names, factors in float32 whatever they were stored as, and B A · alpha / r when made dense."""
    base, factors = write_base(tmp_path / "base"), random_factors(SHAPES, 4, 0)
    stored = {name: (down.bfloat16(), up.bfloat16()) for name, (down, up) in factors.items()}
    adapter = loaded(AdapterFolder.open(write_adapter(tmp_path / "a", stored, lora_alpha=6)), base)
    assert sorted(adapter) == ["model.layers.0.q_proj.weight", "model.layers.1.up_proj.weight"]
    for module, (down, up) in stored.items():
        change = adapter[f"{module}.weight"]
        assert (change.up.dtype, change.rank, change.scale) == (torch.float32, 4, 1.5)
        torch.testing.assert_close(change.dense(), (up.float() @ down.float()) * 1.5)


def test_patterns_and_rank_stabilised_scales(tmp_path: Path) -> None:
    """rank_pattern and alpha_pattern match the end of a module's name; rsLoRA divides by the root of the rank."""
    factors = random_factors({"model.layers.0.q_proj": (6, 8)}, 4, 0) | random_factors(
        {"model.layers.1.up_proj": (12, 8)}, 2, 1
    )
    config = {"r": 4, "lora_alpha": 8, "rank_pattern": {"up_proj": 2}, "alpha_pattern": {r"layers\.1\..*": 3}}
    plain = AdapterFolder.open(write_adapter(tmp_path / "a", factors, **config))
    assert [m.scale for m in plain.modules.values()] == [2.0, 1.5]
    stable = AdapterFolder.open(write_adapter(tmp_path / "b", factors, use_rslora=True, **config))
    assert [m.scale for m in stable.modules.values()] == [8 / math.sqrt(4), 3 / math.sqrt(2)]
    with pytest.raises(CheckpointError, match=r"'model.layers.1.up_proj' has factors of ranks 2 and 2, .* says 4"):
        AdapterFolder.open(write_adapter(tmp_path / "c", factors, r=4))


@pytest.mark.parametrize("shape", [(8, 6), (7, 7)])
def test_layers_that_store_their_matrix_turned(tmp_path: Path, shape: tuple[int, int]) -> None:
    """With fan_in_fan_out the base's tensor is [in, out], also where it is square and its shape does not tell."""
    base = write_base(tmp_path / "base", {"h.0.c_attn": shape})
    factors = random_factors({"h.0.c_attn": (shape[1], shape[0])}, 2, 0)
    adapter = AdapterFolder.open(write_adapter(tmp_path / "a", factors, fan_in_fan_out=True))
    down, up = factors["h.0.c_attn"]
    torch.testing.assert_close(loaded(adapter, base)["h.0.c_attn.weight"].dense(), (up @ down).t() * 2)


@pytest.mark.parametrize(
    ("trained", "stored"),
    [
        ("model.layers.0.q", "layers.0.q"),
        ("layers.0.q", "model.layers.0.q"),
        ("model.layers.0.q", "model.language_model.layers.0.q"),
        ("transformer.h.0.q", "h.0.q"),
    ],
)
def test_prefixes_may_differ(tmp_path: Path, trained: str, stored: str) -> None:
    """The base may have been saved without the head's class around it, or within a larger model."""
    base = write_base(tmp_path / "base", {stored: (6, 8), stored.replace("0", "1"): (6, 8), "visual.merger": (6, 8)})
    factors = random_factors({trained: (6, 8), trained.replace("0", "1"): (6, 8)}, 2, 0)
    found = targets(AdapterFolder.open(write_adapter(tmp_path / "a", factors)), base, "expert 'a'")
    assert found == {f"{stored}.weight": trained, f"{stored.replace('0', '1')}.weight": trained.replace("0", "1")}


def test_two_places_that_fit_are_none(tmp_path: Path) -> None:
    """Where two towers have the same layers, which one is meant is not guessed."""
    base = write_base(tmp_path / "base", {"text.layers.0.q": (6, 8), "image.layers.0.q": (6, 8)})
    adapter = AdapterFolder.open(write_adapter(tmp_path / "a", random_factors({"layers.0.q": (6, 8)}, 2, 0)))
    with pytest.raises(CheckpointError, match=r"adapts module 'layers.0.q', which the base .* does not have"):
        targets(adapter, base, "expert 'a'")


def test_names_in_memory_are_asked_for_only_when_needed(tmp_path: Path) -> None:
    """A renamed module is found through the names in memory; the files' own names need none."""
    base = write_base(tmp_path / "base", {"encoder.layer.0.query": (6, 8)})
    adapter = AdapterFolder.open(write_adapter(tmp_path / "a", random_factors({"layers.0.q_proj": (6, 8)}, 2, 0)))
    names = {"layers.0.q_proj.weight": "encoder.layer.0.query.weight"}
    assert targets(adapter, base, "a", lambda: names) == {"encoder.layer.0.query.weight": "layers.0.q_proj"}
    own = AdapterFolder.open(write_adapter(tmp_path / "b", random_factors({"encoder.layer.0.query": (6, 8)}, 2, 0)))
    assert targets(own, base, "b", lambda: pytest.fail("asked")) == {
        "encoder.layer.0.query.weight": "encoder.layer.0.query"
    }


def test_what_does_not_fit_is_said_in_a_sentence(tmp_path: Path) -> None:
    """An unknown module, another shape, a quantised base and a head, each with its name."""
    base = write_base(tmp_path / "base", None, **{"q8.weight": torch.zeros(6, 8, dtype=torch.int8)})

    def said(factors: dict[str, tuple[int, int]], heads: tuple[str, ...] = ()) -> str:
        adapter = AdapterFolder.open(write_adapter(tmp_path / "a", random_factors(factors, 2, 0)))
        (sentence,) = differences(base, "a", adapter, heads)
        return sentence

    assert "expert 'a' adapts module 'model.layers.0.qproj'" in said({"model.layers.0.qproj": (6, 8)})
    assert "its nearest is 'model.layers.0.q_proj'" in said({"model.layers.0.qproj": (6, 8)})
    assert "a matrix (6, 9), tensor 'model.layers.0.q_proj.weight' of the base is (6, 8)" in said(
        {"model.layers.0.q_proj": (6, 9)}
    )
    assert "not quantised" in said({"q8": (6, 8)})
    assert "changes the head tensor" in said({"model.layers.0.q_proj": (6, 8)}, ("model.layers.0.*",))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"peft_type": "IA3"}, "'IA3' adapter, only 'LORA'"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias: 'all'"),
        ({"lora_bias": True}, "a bias beside the factors"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_16"}, "changes the base too"),
        ({"target_parameters": ["experts.w"]}, "no linear layers"),
        ({"lora_alpha": float("inf")}, "not finite"),
    ],
)
def test_kinds_that_are_not_supported(tmp_path: Path, config: dict[str, object], sentence: str) -> None:
    """Each is refused by name when the folder is opened."""
    with pytest.raises(CheckpointError, match=sentence):
        AdapterFolder.open(write_adapter(tmp_path / "a", random_factors(SHAPES, 2, 0), **config))


def test_tensors_that_are_no_factors(tmp_path: Path) -> None:
    """Embeddings, convolutions, magnitudes, half a pair, and nothing at all."""
    folder = write_adapter(tmp_path / "a", random_factors(SHAPES, 2, 0))
    file = folder / "adapter_model.safetensors"
    good = load_file(file)
    key = "base_model.model.model.layers.0.q_proj.lora_A.weight"
    for tensors, sentence in (
        (good | {"base_model.model.emb.lora_embedding_A": torch.zeros(2, 5)}, "is an embedding"),
        (good | {"base_model.model.q.lora_magnitude_vector": torch.zeros(5)}, "is no factor"),
        (good | {"base_model.model.c.lora_A.weight": torch.zeros(2, 5, 3, 3)}, "is a convolution"),
        ({n: t for n, t in good.items() if n != key}, "has lora_B but not its other factor"),
        ({}, "holds no factors"),
    ):
        save_file(tensors, file)
        with pytest.raises(CheckpointError, match=sentence):
            AdapterFolder.open(folder)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """A pickle with the command that converts it, a missing file, damage, and numbers that are none."""
    folder = write_adapter(tmp_path / "a", random_factors(SHAPES, 2, 0))
    file, base = folder / "adapter_model.safetensors", write_base(tmp_path / "base")
    tensors = load_file(file)
    save_file({n: t * float("nan") for n, t in tensors.items()}, file)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        loaded(AdapterFolder.open(folder), base)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        AdapterFolder.open(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        AdapterFolder.open(folder)
    torch.save(tensors, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"is a pickle.*\n  python -c .*weights_only=True"):
        AdapterFolder.open(folder)


def test_what_a_folder_is(tmp_path: Path) -> None:
    """A folder with an adapter's configuration and no model is an adapter; its digest covers both files."""
    factors = random_factors(SHAPES, 2, 0)
    one, two = (open_expert(write_adapter(tmp_path / n, factors)) for n in ("a", "b"))
    assert isinstance(one, AdapterFolder)
    assert one.digest == two.digest
    assert open_expert(write_adapter(tmp_path / "b", factors, lora_alpha=5)).digest != one.digest
    base = write_base(tmp_path / "base")
    (base.folder / "adapter_config.json").write_text("{}")
    assert isinstance(open_expert(base.folder), Checkpoint)


def test_adapters_in_memory_are_checked() -> None:
    """Names, shapes, shared memory and values, before anything is merged."""
    change = LowRank(torch.ones(3, 1), torch.ones(1, 4), 1.0)
    base = {"w": torch.zeros(3, 4), "v": torch.zeros(4, 3)}
    assert adapted_names(base, {"a": {"w": change}}) == ["w"]
    for wrong, sentence in (
        ({"x": change}, r"'x' as a matrix .* no such tensor"),
        ({"v": change}, r"as a matrix \(3, 4\), the base has it as \(4, 3\)"),
        ({"w": LowRank(change.up * float("inf"), change.down, 1.0)}, r"a factor of 'w' holds NaN"),
    ):
        with pytest.raises(CheckpointError, match=sentence):
            adapted_names(base, {"a": wrong})
    with pytest.raises(CheckpointError, match="one tensor with 'u'"):
        adapted_names(base | {"u": base["w"]}, {"a": {"w": change}})
