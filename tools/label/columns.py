# SPDX-License-Identifier: Apache-2.0
"""Columns that experts write for each other; training does not read them."""

from mtv_jax.core.fields import Field

MOST_TAGS = 64
TAGS = Field(name="tags", shape="r", dtype="str", pad_to=MOST_TAGS, encode="vocabulary")
TAG_SCORES = Field(name="tag_scores", shape="r", pad_to=MOST_TAGS, unit="probability")
