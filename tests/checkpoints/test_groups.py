"""Layer groups of real architectures, made tiny from their configurations, without any table of them."""

import pytest
import torch
import transformers as t
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.checkpoints.groups import Grouping, layer_groups
from mergesearch.errors import SpecError

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = SMALL | {"vocab_size": 32}
LLAMA = TEXT | {"num_key_value_heads": 1}


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model that holds no data."""
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def models() -> dict[str, torch.nn.Module]:
    """One tiny model per architecture, on the meta device."""
    with torch.device("meta"):
        return {
            "vit": t.ViTForImageClassification(t.ViTConfig(**SMALL, image_size=8, patch_size=4)),
            "bert": t.BertForSequenceClassification(t.BertConfig(**TEXT)),
            "distilbert": t.DistilBertForSequenceClassification(
                t.DistilBertConfig(vocab_size=32, dim=16, hidden_dim=24, n_layers=3, n_heads=2)
            ),
            "gpt2": t.GPT2LMHeadModel(t.GPT2Config(vocab_size=32, n_embd=16, n_layer=12, n_head=2)),
            "llama": t.LlamaForCausalLM(t.LlamaConfig(**LLAMA)),
            "mixtral": t.MixtralForCausalLM(t.MixtralConfig(**LLAMA, num_local_experts=4)),
            "t5": t.T5ForConditionalGeneration(
                t.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2)
            ),
            "clip": t.CLIPModel(
                t.CLIPConfig(
                    text_config=TEXT, vision_config=SMALL | {"image_size": 8, "patch_size": 4}, projection_dim=8
                )
            ),
            "swin": t.SwinForImageClassification(
                t.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4)
            ),
        }


MODELS = {name: shapes_of(model) for name, model in models().items()}
BLOCKS = {
    "vit": ("embeddings", "L0", "L1", "L2", "classifier", "layernorm"),
    "bert": ("embeddings", "L0", "L1", "L2", "classifier", "pooler"),
    "distilbert": ("embeddings", "L0", "L1", "L2", "classifier", "pre_classifier"),
    "gpt2": (*(f"L{i}" for i in range(12)), "ln_f", "wpe", "wte"),
    "llama": ("embed_tokens", "L0", "L1", "L2", "lm_head", "norm"),
    "mixtral": ("embed_tokens", "L0", "L1", "L2", "lm_head", "norm"),
    "t5": ("decoder.L0", "decoder.L1", "decoder.L2", "encoder.L0", "encoder.L1", "decoder.final_layer_norm",
           "encoder.final_layer_norm", "lm_head", "shared"),
    "swin": ("embeddings", "L0", "L1", "classifier", "layernorm"),
}  # fmt: skip


def group(grouping: Grouping, name: str) -> str:
    """The name of a tensor's group."""
    return grouping.groups[grouping.group_of[name]]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_real_architectures(name: str) -> None:
    """Embeddings, layers in numeric order, then the rest."""
    present = set(BLOCKS[name])
    grouping = layer_groups(MODELS[name], "block")
    # A tied head is one tensor with the embedding, and then has no name of its own.
    assert set(grouping.groups) <= present
    assert present - set(grouping.groups) <= {"lm_head"}
    assert grouping.groups == tuple(g for g in BLOCKS[name] if g in set(grouping.groups))


def test_two_towers_are_told_apart() -> None:
    """CLIP's text and vision layers are named by their tower, and so is what surrounds them."""
    groups = layer_groups(MODELS["clip"], "block").groups
    assert groups[:2] == ("text_model.embeddings", "vision_model.embeddings")
    assert groups[2:8] == tuple(f"{tower}_model.L{i}" for tower in ("text", "vision") for i in range(3))
    assert {"text_model.final_layer_norm", "vision_model.post_layernorm", "logit_scale"} <= set(groups[8:])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("llama", {"L0.self_attn", "L0.mlp", "L0.norm"}),
        ("gpt2", {"L0.attn", "L0.mlp", "L0.norm"}),
        ("vit", {"L0.norm"}),
        ("t5", {"encoder.L0.layer.0", "encoder.L0.layer.1"}),
        ("swin", {"L1.blocks.0", "L1.blocks.1"}),
    ],
)
def test_modules_divide_layers(name: str, wanted: set[str]) -> None:
    """Attention and MLP apart, vectors together as norm, a number that follows belongs to the module."""
    grouping = layer_groups(MODELS[name], "module")
    assert wanted <= set(grouping.groups)
    layers = [g for g in grouping.groups if ".norm" in g]
    assert layers == sorted(layers, key=lambda g: grouping.groups.index(g))


def test_chunks_are_near_equal_runs_of_layers() -> None:
    """12 layers in 5 chunks: every chunk has 2 or 3, in order; what stands outside stays."""
    grouping = layer_groups(MODELS["gpt2"], {"chunks": 5})
    assert grouping.groups == ("C0", "C1", "C2", "C3", "C4", "ln_f", "wpe", "wte")
    chunk = [group(grouping, f"transformer.h.{i}.attn.c_attn.weight") for i in range(12)]
    assert chunk == sorted(chunk)
    assert all(2 <= chunk.count(c) <= 3 for c in set(chunk))
    with pytest.raises(SpecError, match="from 1 to 12"):
        layer_groups(MODELS["gpt2"], {"chunks": 13})


def test_expressions_decide_in_order() -> None:
    """The first expression that is found wins; unmatched names, bad and idle expressions are refused."""
    grouping = layer_groups(MODELS["vit"], {r"\.0\.": "first", "attention": "attention", ".*": "rest"})
    assert grouping.groups == ("first", "attention", "rest")
    assert group(grouping, "vit.layernorm.weight") == "rest"
    with pytest.raises(SpecError, match=r"no expression matches 'classifier\.bias'"):
        layer_groups(MODELS["vit"], {"^vit": "trunk"})
    with pytest.raises(SpecError, match="not a regular expression"):
        layer_groups(MODELS["vit"], {"(": "x"})
    with pytest.raises(SpecError, match="'attention' decides no tensor"):
        layer_groups(MODELS["vit"], {".*": "all", "attention": "x"})
    with pytest.raises(SpecError, match="did you mean 'block'"):
        layer_groups(MODELS["vit"], "blocks")


def test_a_numbered_head_is_not_a_layer() -> None:
    """A Sequential classifier beside real layers is one group; alone, its members are the layers."""
    head = {"classifier.0.weight": (4, 4), "classifier.2.weight": (4, 4)}
    assert layer_groups(MODELS["vit"] | head, "block").groups == BLOCKS["vit"]
    assert layer_groups(head, "block").groups == ("L0", "L2")
    assert layer_groups({"model.layers.0.a.weight": (2,), "model.norm.weight": (2,)}, "block").groups == (
        "layers",
        "norm",
    )


segments = st.sampled_from(["model", "layers", "0", "1", "2", "10", "attn", "mlp", "weight", "bias", "emb", "enc"])
names = st.lists(st.lists(segments, min_size=1, max_size=6).map(".".join), min_size=1, max_size=25, unique=True)


@given(names=names, kind=st.sampled_from(["model", "block", "module", "tensor"]), data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_tensor_is_in_exactly_one_group_whatever_the_order(
    names: list[str], kind: str, data: st.DataObject
) -> None:
    """All tensors, no empty group, and the same result for any order of the names."""
    shapes = {name: (2,) * (1 + len(name) % 2) for name in names}
    grouping = layer_groups(shapes, kind)
    assert set(grouping.group_of) == set(shapes)
    assert set(grouping.group_of.values()) == set(range(len(grouping.groups)))
    assert len(set(grouping.groups)) == len(grouping.groups)
    shuffled = {name: shapes[name] for name in data.draw(st.permutations(names))}
    assert layer_groups(shuffled, kind) == grouping
