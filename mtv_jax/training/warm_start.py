# SPDX-License-Identifier: Apache-2.0
"""Parameters of one model fitted to another: leaf by leaf loaded, resampled, fresh or unused.

Two parameters of the image tower depend on image and patch size, and are resampled:

- position embeddings, bicubically (`nn/pos_embed.py`);
- the patch kernel, by the pseudo-inverse of the same bicubic matrix B (FlexiViT, arXiv
  2212.08013, eq. 3-5): of all kernels ŵ, the one whose tokens ⟨Bx, ŵ⟩ of resized patches come
  nearest to ⟨x, w⟩, which is ŵ = (Bᵀ)⁺ w. For larger patches they are equal, whatever x.

FlexiViT's B is bilinear. Anything else that differs in shape is an error.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import PyTree

from mtv_jax.core.errors import UserError
from mtv_jax.dist.rules import path_string
from mtv_jax.nn.pos_embed import resample_weights

Fate = Literal["loaded", "resampled", "fresh", "unused"]
Shape = tuple[int, ...]

_FATES: tuple[Fate, ...] = ("loaded", "resampled", "fresh", "unused")
_IMAGE_TOWER = "backbone/image/"
_POSITIONS = "backbone/image/pos_embed"
_KERNEL = "backbone/image/patch_embed/conv/kernel"
_MASK_TOKEN = "backbone/image/mask_token"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """What became of one parameter.

    Attributes:
        path: "/"-joined.
        fate: see the module.
        shape: in the new model; of what is unused, in the source.
        note: "14 x 14 -> 24 x 24" of what is resampled.
    """

    path: str
    fate: Fate
    shape: Shape
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Parameters to start from.

    Attributes:
        title: where they are from.
        arrays: by path, those that are loaded or resampled.
        leaves: every parameter of the new model and of the source, in order of path.
        data: what they were learned from.
    """

    title: str
    arrays: Mapping[str, np.ndarray]
    leaves: tuple[Leaf, ...]
    data: tuple[Mapping[str, Any], ...] = ()

    def summary(self) -> str:
        """Counts, and one line for each parameter or subtree that is not simply loaded."""
        paths = {fate: [x.path for x in self.leaves if x.fate == fate] for fate in _FATES}
        counts = ", ".join(f"{len(paths[fate])} {fate}" for fate in _FATES)
        notes = [f"resampled {x.path}: {x.note}" for x in self.leaves if x.fate == "resampled"]
        for fate in ("fresh", "unused"):
            others = [x.path for x in self.leaves if x.fate != fate]
            notes += [f"{fate} {subtree}" for subtree in _subtrees(paths[fate], others)]
        return "\n".join([f"init from {self.title}: {counts}", *notes])

    def table(self) -> str:
        """`init.txt`: the summary, and a line for every parameter."""
        rows = [f"{x.fate}\t{x.path}\t{x.shape}\t{x.note}".rstrip() for x in self.leaves]
        return "\n".join([self.summary(), "", *rows]) + "\n"


def fit(title: str, source: PyTree, wanted: PyTree) -> WarmStart:
    """Fits the parameters of `source` to a model.

    Args:
        title: names the source.
        source: `{"backbone", "heads"}`, numpy.
        wanted: the model's parameters; only shapes and dtypes matter.

    Raises:
        UserError: another model, or one without an image tower.
    """
    there, here = _by_path(source), _by_path(wanted)
    arrays: dict[str, np.ndarray] = {}
    leaves: list[Leaf] = []
    for path in sorted({*there, *here}):
        if path not in here:
            leaves.append(Leaf(path=path, fate="unused", shape=there[path].shape))
        elif path not in there:
            _refuse_fresh(title, path)
            leaves.append(Leaf(path=path, fate="fresh", shape=here[path].shape))
        else:
            array, note = there[path], ""
            if array.shape != here[path].shape:
                array, note = _resampled(path, array, here[path].shape)
            arrays[path] = np.asarray(array, here[path].dtype)
            fate: Fate = "resampled" if note else "loaded"
            leaves.append(Leaf(path=path, fate=fate, shape=here[path].shape, note=note))
    return WarmStart(title=title, arrays=arrays, leaves=tuple(leaves))


def resample_positions(table: np.ndarray, side: int) -> np.ndarray:
    """[1, n, d] positions of a square grid as [1, side², d], bicubic."""
    base = math.isqrt(table.shape[1])
    grid = table.reshape(base, base, -1)
    return _on_both_axes(resample_weights(base, side), grid).reshape(1, side**2, -1)


def resample_kernel(kernel: np.ndarray, side: int) -> np.ndarray:
    """[p, p, c, d] patch kernel as [side, side, c, d], by the pseudo-inverse."""
    resize = resample_weights(kernel.shape[0], side).astype(np.float64)
    return _on_both_axes(np.linalg.pinv(resize.T), kernel)


def _on_both_axes(matrix: np.ndarray, array: np.ndarray) -> np.ndarray:
    """[m, k] times the first two axes of [k, k, …]; the pseudo-inverse of B separates as B does."""
    return np.einsum("Hh,Ww,hw...->HW...", matrix, matrix, array, optimize=True)


def _resampled(path: str, array: np.ndarray, shape: Shape) -> tuple[np.ndarray, str]:
    """An array on another grid, and the words for it."""
    if path == _POSITIONS and array.shape[2:] == shape[2:]:
        base, side = (math.isqrt(n) for n in (array.shape[1], shape[1]))
        return resample_positions(array, side), f"{base} x {base} -> {side} x {side}"
    if path == _KERNEL and array.shape[2:] == shape[2:]:
        base, side = array.shape[0], shape[0]
        return resample_kernel(array, side), f"{base} x {base} -> {side} x {side}"
    settings = "model.*" if path.startswith("backbone/") else "objectives.*"
    raise UserError(
        f"init.source has {path} of shape {array.shape}, this run {shape}; only image and patch "
        f"size may differ: use the source's {settings} settings"
    )


def _refuse_fresh(title: str, path: str) -> None:
    if path.startswith(_IMAGE_TOWER) and path != _MASK_TOKEN:
        raise UserError(
            f"init.source {title} lacks {path}; an image tower is taken whole: use the source's "
            "model.* settings, or another source"
        )


def _subtrees(paths: Iterable[str], others: Iterable[str]) -> list[str]:
    """The largest subtrees below a tower or a head that hold all of `paths` and no other."""
    mixed = {prefix for path in others for prefix in _prefixes(path)}
    return sorted({next(x for x in _prefixes(path) if x not in mixed) for path in paths})


def _prefixes(path: str) -> list[str]:
    """ "heads/a/b" as ["heads/a", "heads/a/b"]."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(2, len(parts) + 1)]


def _by_path(tree: PyTree) -> dict[str, Any]:
    return {path_string(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}
