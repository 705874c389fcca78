# SPDX-License-Identifier: Apache-2.0
"""What objectives may ask for: views (inputs), passes (tower forwards) and wants (outputs).

Objectives ask for passes by value; equal passes run once, whatever is wanted of them. The union
over all objectives is the plan of a step, and the only thing the step knows about them.

Legend of axis names, used in every shape of this repository: b batch, v views of one image,
n patch tokens, d embed dim, k prototypes, r regions, t text ids, h w pixels, l layers.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

import jax
from jaxtyping import Array, Float

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageView:
    """A recipe for crops of one image field, drawn on the device.

    Attributes:
        name: how passes and objectives refer to it.
        size: side of the square crop in pixels.
        count: crops per image; above one the pixels carry an axis `v`.
        area: range of the crop's area relative to the image.
        ratio: range of the crop's aspect ratio (width / height), log-uniform.
        flip: probability of a horizontal flip.
        field: the raster column it is cut from.
    """

    name: str
    size: int
    count: int = 1
    area: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    field: str = "image"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextView:
    """Token ids of a text column, or of a table that is not aligned with the batch.

    The last id sits at position embedding `pooling_slot`, the others at 0, 1, …: short texts are
    pooled at the same learned position as captions.
    """

    name: str
    length: int
    pooling_slot: int
    field: str = "caption"
    table: bool = False


View = ImageView | TextView


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """Identity of one tower forward.

    Attributes:
        tower: which tower.
        view: a view of the config, or an entry that an objective's `derive` adds to the views.
        who: "student", "ema", or "frozen/<expert>"; all but the student are stop-gradiented.
        patch_mask: derived entry [b, n] bool; masked patches are replaced or dropped.
        mask_mode: "replace" puts the learned mask token, "drop" keeps unmasked patches only.
        num_kept: with "drop", how many patches every sample keeps.
        attn_mask: derived entry [b, n, n] bool, True where attention is allowed.
    """

    tower: Literal["image", "text"]
    view: str
    who: str = "student"
    patch_mask: str = ""
    mask_mode: Literal["replace", "drop"] = "replace"
    num_kept: int | None = None
    attn_mask: str = ""

    @property
    def id(self) -> str:
        """A stable string, e.g. "image/global_crop/student/patch_mask:replace"; keys of pytrees."""
        mask = f"/{self.patch_mask}:{self.mask_mode}" if self.patch_mask else ""
        mask += f":{self.num_kept}" if self.num_kept is not None else ""
        attn = f"/attn:{self.attn_mask}" if self.attn_mask else ""
        return f"{self.tower}/{self.view}/{self.who}{mask}{attn}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wants:
    """What an objective reads from a pass.

    Attributes:
        taps: 0-indexed blocks whose raw outputs are read.
        tapped_norm: final-normed taps as well.
        embedded: the tokens before the first block (patch plus position embedding).
        tokens: final-normed tokens of the last block.
        last_raw: the last block's output before the final norm.
        pooled: the pooled vector.
    """

    taps: tuple[int, ...] = ()
    tapped_norm: bool = False
    embedded: bool = False
    tokens: bool = False
    last_raw: bool = False
    pooled: bool = False

    def __or__(self, other: "Wants") -> "Wants":
        merged = {
            f.name: getattr(self, f.name) or getattr(other, f.name)
            for f in dataclasses.fields(self)
            if f.name != "taps"
        }
        return Wants(taps=tuple(sorted({*self.taps, *other.taps})), **merged)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """What a tower returns; entries nobody wants are None (or absent from the dicts).

    Attributes:
        taps: block index → raw block output [..., n, d].
        taps_normed: the same through the final norm.
        embedded: tokens before the first block [..., n, d].
        tokens: final-normed tokens [..., n, d].
        last_raw: last block's output before the final norm [..., n, d].
        pooled: pooled vector [..., d].
    """

    taps: dict[int, Float[Array, "*b n d"]] = dataclasses.field(default_factory=dict)
    taps_normed: dict[int, Float[Array, "*b n d"]] = dataclasses.field(default_factory=dict)
    embedded: Float[Array, "*b n d"] | None = None
    tokens: Float[Array, "*b n d"] | None = None
    last_raw: Float[Array, "*b n d"] | None = None
    pooled: Float[Array, "*b d"] | None = None


def wanted(feature: T | None) -> T:
    """The feature, or an error for one that `Objective.passes` did not ask for."""
    if feature is None:
        raise ValueError("a feature is read that passes() does not want")
    return feature


Plan = Mapping[Pass, Wants]


def needs_mask_token(plan: Plan) -> bool:
    """Whether some pass replaces masked patches."""
    return any(request.patch_mask and request.mask_mode == "replace" for request in plan)


def needs_text_tower(plan: Plan) -> bool:
    """Whether some pass reads texts."""
    return any(request.tower == "text" for request in plan)


def merge_plans(plans: Iterable[Plan]) -> dict[Pass, Wants]:
    """Union of what objectives want, in order of their pass ids (so order never matters)."""
    merged: dict[Pass, Wants] = {}
    for plan in plans:
        for request, wants in plan.items():
            merged[request] = merged.get(request, Wants()) | wants
    return dict(sorted(merged.items(), key=lambda item: item[0].id))
