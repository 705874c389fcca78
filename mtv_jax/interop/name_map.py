# SPDX-License-Identifier: Apache-2.0
"""Our parameter paths against the keys of Hugging Face's `SiglipModel`: one table, both ways.

Keys carry the prefixes `vision_model.` and `text_model.`, which transformers 4 and 5 both read.
A row with `{layer}` in its key unstacks our leading axis of layers; rows with a `part` share one
tensor, in which torch fuses the projections to queries, keys and values.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from mtv_jax.core.errors import UserError

Layout = Literal["same", "flat", "table", "linear", "merge", "conv"]

# Ours, but of no use to an exported encoder, and unknown to SiglipModel.
NOT_EXPORTED = frozenset({"image/mask_token"})


@dataclasses.dataclass(frozen=True)
class Row:
    """One of our parameters and where it lies in theirs.

    Attributes:
        ours: path, "/"-joined.
        theirs: key, with `{layer}` where ours is stacked.
        layout: how the axes differ, see `to_theirs`.
        part: which third of their tensor, along its first axis.
    """

    ours: str
    theirs: str
    layout: Layout = "same"
    part: int | None = None

    @property
    def stacked(self) -> bool:
        """Whether our array holds all layers."""
        return "{layer}" in self.theirs


def _linear(ours: str, theirs: str, layout: Layout = "linear") -> list[Row]:
    return [Row(f"{ours}/kernel", f"{theirs}.weight", layout), _bias(ours, f"{theirs}.bias")]


def _bias(ours: str, theirs: str) -> Row:
    return Row(f"{ours}/bias", theirs, "flat")


def _norm(ours: str, theirs: str) -> list[Row]:
    return [Row(f"{ours}/scale", f"{theirs}.weight"), Row(f"{ours}/bias", f"{theirs}.bias")]


def _mlp(ours: str, theirs: str) -> list[Row]:
    return [*_linear(f"{ours}/fc1", f"{theirs}.fc1"), *_linear(f"{ours}/fc2", f"{theirs}.fc2")]


def _blocks(ours: str, theirs: str) -> list[Row]:
    return [
        *_norm(f"{ours}/norm1", f"{theirs}.layer_norm1"),
        *_linear(f"{ours}/attn/query", f"{theirs}.self_attn.q_proj"),
        *_linear(f"{ours}/attn/key", f"{theirs}.self_attn.k_proj"),
        *_linear(f"{ours}/attn/value", f"{theirs}.self_attn.v_proj"),
        *_linear(f"{ours}/attn/out", f"{theirs}.self_attn.out_proj", "merge"),
        *_norm(f"{ours}/norm2", f"{theirs}.layer_norm2"),
        *_mlp(f"{ours}/mlp", f"{theirs}.mlp"),
    ]


def _fused(ours: str, theirs: str) -> list[Row]:
    return [
        row
        for part, name in enumerate(("query", "key", "value"))
        for row in (
            Row(f"{ours}/{name}/kernel", f"{theirs}.in_proj_weight", "linear", part),
            Row(f"{ours}/{name}/bias", f"{theirs}.in_proj_bias", "flat", part),
        )
    ]


ROWS: tuple[Row, ...] = (
    Row("logit_scale", "logit_scale", "flat"),
    Row("logit_bias", "logit_bias", "flat"),
    *_linear("image/patch_embed/conv", "vision_model.embeddings.patch_embedding", "conv"),
    Row("image/pos_embed", "vision_model.embeddings.position_embedding.weight", "table"),
    *_blocks("image/blocks", "vision_model.encoder.layers.{layer}"),
    *_norm("image/norm", "vision_model.post_layernorm"),
    Row("image/map_pool/probe", "vision_model.head.probe"),
    *_fused("image/map_pool/attn", "vision_model.head.attention"),
    *_linear("image/map_pool/attn/out", "vision_model.head.attention.out_proj", "merge"),
    *_norm("image/map_pool/norm", "vision_model.head.layernorm"),
    *_mlp("image/map_pool/mlp", "vision_model.head.mlp"),
    Row("text/token_embed", "text_model.embeddings.token_embedding.weight"),
    Row("text/pos_embed", "text_model.embeddings.position_embedding.weight", "table"),
    *_blocks("text/blocks", "text_model.encoder.layers.{layer}"),
    *_norm("text/norm", "text_model.final_layer_norm"),
    *_linear("text/head", "text_model.head"),
)


def to_theirs(array: np.ndarray, layout: Layout) -> np.ndarray:
    """One of our arrays in their layout.

    linear: [in, out…] → [out, in]; merge: [in…, out] → [out, in]; conv: [h, w, in, out] →
    [out, in, h, w]; flat: any shape → [size]; table: [1, n, d] → [n, d].
    """
    match layout:
        case "linear":
            return array.reshape(array.shape[0], -1).T
        case "merge":
            return array.reshape(-1, array.shape[-1]).T
        case "conv":
            return array.transpose(3, 2, 0, 1)
        case "flat":
            return array.reshape(-1)
        case "table":
            return array[0]
        case "same":
            return array


def to_ours(array: np.ndarray, layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `to_theirs` for an array of ours of `shape`."""
    if layout == "conv":
        array = array.transpose(2, 3, 1, 0)
    elif layout in ("linear", "merge"):
        array = array.T
    return array.reshape(shape)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) pairs of nested dicts, paths "/"-joined."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        _insert(tree, path, leaf)
    return tree


def _rows_of(tree: Mapping[str, Any]) -> list[Row]:
    """The rows of the towers, pooling and scalars that a tree has."""
    pools = "map_pool" in tree["image"]
    rows = [row for row in ROWS if row.ours.split("/")[0] in tree]
    return [row for row in rows if pools or not row.ours.startswith("image/map_pool/")]


def keys_of(shapes: Mapping[str, Any]) -> set[str]:
    """The keys of theirs that `from_hf` reads; `shapes` as there."""
    leaves = dict(flatten(shapes))
    return {
        row.theirs.format(layer=layer)
        for row in _rows_of(shapes)
        for layer in range(leaves[row.ours].shape[0] if row.stacked else 1)
    }


def to_hf(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our parameters as theirs, float32 and C-contiguous.

    Args:
        params: `{"image": …, "text": …, "logit_scale": …, "logit_bias": …}`, or `{"image": …}`.

    Raises:
        ValueError: a parameter without a row, or a row without its parameter.
    """
    ours = {path: leaf for path, leaf in flatten(params) if path not in NOT_EXPORTED}
    rows = _rows_of(params)
    if unmatched := ours.keys() ^ {row.ours for row in rows}:
        raise ValueError(f"parameters and the name map differ in {sorted(unmatched)}")
    parts: dict[str, dict[int, np.ndarray]] = {}
    for row in rows:
        array = np.asarray(ours[row.ours], np.float32)
        for layer, item in enumerate(array if row.stacked else [array]):
            key = row.theirs.format(layer=layer)
            parts.setdefault(key, {})[row.part or 0] = to_theirs(item, row.layout)
    # safetensors writes the buffer of an array, whatever its strides say.
    return {
        key: np.ascontiguousarray(np.concatenate([group[part] for part in sorted(group)]))
        for key, group in parts.items()
    }


def from_hf(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `to_hf`.

    Args:
        tensors: theirs.
        shapes: a tree like the result, whose leaves have a `.shape`; parameters that are never
            exported keep out of it.

    Raises:
        UserError: a tensor that is missing, superfluous or of another size.
    """
    wanted = {path: leaf.shape for path, leaf in flatten(shapes)}
    unread = set(tensors)
    tree: dict[str, Any] = {}
    for row in _rows_of(shapes):
        shape = wanted.pop(row.ours)
        num_layers = shape[0] if row.stacked else 1
        keys = [row.theirs.format(layer=layer) for layer in range(num_layers)]
        unread -= {*keys}
        item_shape = shape[1:] if row.stacked else shape
        items = [_read(tensors, key, row, item_shape) for key in keys]
        _insert(tree, row.ours, np.stack(items) if row.stacked else items[0])
    if unread or wanted:
        raise UserError(f"weights and model differ in {sorted({*unread, *wanted})[:3]}")
    return tree


def _read(
    tensors: Mapping[str, np.ndarray], key: str, row: Row, shape: tuple[int, ...]
) -> np.ndarray:
    if key not in tensors:
        raise UserError(f"the weights lack {key}: they are incomplete, or of another model")
    tensor = tensors[key] if row.part is None else np.split(tensors[key], 3)[row.part]
    if tensor.size != int(np.prod(shape)):
        raise UserError(
            f"{key} has shape {tensor.shape}, the model's {row.ours} has {shape}; "
            "weights and model description do not belong together"
        )
    return to_ours(tensor, row.layout, shape)


def _insert(tree: dict[str, Any], path: str, leaf: np.ndarray) -> None:
    *parents, name = path.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[name] = leaf
