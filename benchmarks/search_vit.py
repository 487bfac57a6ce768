"""A lean forward pass of transformers' ViTForImageClassification on a plain dict of weights.

The same numbers as the model's own `forward` (a test says so), at less than half its time: no modules to fill, one
matrix product for query, key and value, chunks that stay in the cache, and in the last layer only the class token.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 2400  # images at a time times hidden size: what stays in the cache
EPSILON = 1e-12  # of the layer norms


def layer_count(weights: Mapping[str, Tensor]) -> int:
    """Number of transformer layers of a trunk."""
    return len({name.split(".")[3] for name in weights if ".layer." in name})


def features(weights: Mapping[str, Tensor], image: Tensor, heads: int) -> Tensor:
    """Class-token features (n, hidden) of pixels (n, 1, side, side); differentiable in the weights."""
    layers = [_layer(weights, index) for index in range(layer_count(weights))]
    return torch.cat([_chunk(weights, layers, part, heads) for part in image.split(chunk(weights))])


def chunk(weights: Mapping[str, Tensor]) -> int:
    """Images that a trunk takes at a time."""
    return max(CHUNK // weights["vit.layernorm.weight"].numel(), 1)


def _layer(weights: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    stem = f"vit.encoder.layer.{index}."
    own = {name.removeprefix(stem): value for name, value in weights.items() if name.startswith(stem)}
    for kind in ("weight", "bias"):
        parts = [own[f"attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
        own[f"qkv.{kind}"] = torch.cat(parts)
    return own


def _chunk(weights: Mapping[str, Tensor], layers: list[dict[str, Tensor]], image: Tensor, heads: int) -> Tensor:
    patch = weights["vit.embeddings.patch_embeddings.projection.weight"]  # (hidden, 1, p, p)
    side, count = patch.shape[-1], len(image)
    tiles = image.unfold(2, side, side).unfold(3, side, side).reshape(count, -1, side * side)  # (n, patches, p * p)
    x = functional.linear(tiles, patch.flatten(1), weights["vit.embeddings.patch_embeddings.projection.bias"])
    x = torch.cat([weights["vit.embeddings.cls_token"].expand(count, -1, -1), x], 1)  # (n, tokens, hidden)
    x = x + weights["vit.embeddings.position_embeddings"]
    for index, layer in enumerate(layers):
        x = _block(layer, x, heads, last=index == len(layers) - 1)
    return _norm(x[:, 0], weights, "vit.layernorm")


def _block(layer: dict[str, Tensor], x: Tensor, heads: int, last: bool) -> Tensor:
    count, tokens, hidden = x.shape
    qkv = functional.linear(_norm(x, layer, "layernorm_before"), layer["qkv.weight"], layer["qkv.bias"])
    q, k, v = qkv.view(count, tokens, 3, heads, hidden // heads).permute(2, 0, 3, 1, 4)  # each (n, heads, tokens, d)
    if last:
        x, q = x[:, :1], q[:, :, :1]
    weight = torch.softmax(q @ k.transpose(2, 3) * (hidden // heads) ** -0.5, -1)
    mixed = (weight @ v).transpose(1, 2).reshape(count, -1, hidden)
    x = x + functional.linear(mixed, layer["attention.output.dense.weight"], layer["attention.output.dense.bias"])
    inner = functional.linear(
        _norm(x, layer, "layernorm_after"), layer["intermediate.dense.weight"], layer["intermediate.dense.bias"]
    )
    return x + functional.linear(functional.gelu(inner), layer["output.dense.weight"], layer["output.dense.bias"])


def _norm(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPSILON)
