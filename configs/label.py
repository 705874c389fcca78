# SPDX-License-Identifier: Apache-2.0
"""The experts that write labels, with their settings (MTV section 3).

python -m tools.label --store STORE --experts caption_phrases,owlv2,depth_anything_v2:large
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """Every expert; `--experts` says which of them run, and in which order."""
    common.parse_arg(arg)
    return ConfigDict(dict(experts={**_taggers(), **_dense()}))


def _taggers() -> dict[str, Any]:
    """Those that write tags, which others look for."""
    return dict(
        caption_phrases=_expert(
            "caption_phrases:CaptionPhrases",
            "caption_tags_v1",
            batch_size=256,
            max_words=3,
            max_tags=32,
        ),
        siglip_tags=_expert(
            "siglip_tags:SiglipTags",
            "siglip_tags_v1",
            model="",
            tag_list="",
            prompt="a photo of a {}",
            batch_size=16,
            min_score=0.1,
            max_tags=32,
        ),
        ram_plus=_expert(
            "ram_plus:RamPlus",
            "ram_tags_v1",
            weights="ram_plus_swin_large_14m.pth",
            tag_list="ram_tag_list.txt",
            thresholds="ram_tag_list_threshold.txt",
            batch_size=16,
            max_tags=32,
        ),
    )


def _dense() -> dict[str, Any]:
    """Those whose labels training reads: regions and depth."""
    return dict(
        owlv2=_expert(
            "owlv2:Owlv2",
            "regions_v1",
            weights="google/owlv2-base-patch16-ensemble",
            tags=(),
            batch_size=8,
            max_tags=32,
            min_score=0.2,
            min_score_unmentioned=0.2,
            max_overlap=0.7,
            max_overlap_unlike=0.7,
            max_boxes=20,
            min_side=0.02,
            max_area=1.0,
        ),
        depth_anything_v2=_expert(
            "depth_anything_v2:DepthAnythingV2",
            "depth_v1",
            size="large",
            weights="",
            batch_size=8,
            short_side=288,
            bits=10,
            least_spread=1e-3,
            most_saturated=0.9,
            mirror_side=196,
            least_agreement=0.5,
        ),
    )


def _expert(kind: str, sidecar: str, **settings: Any) -> dict[str, Any]:
    return dict(type=f"tools.label.experts.{kind}", sidecar=sidecar, **settings)
