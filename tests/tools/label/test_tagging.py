# SPDX-License-Identifier: Apache-2.0
"""Tags of several taggers in one store."""

from tools.label.tagging import merged_tags, tag_columns


def test_columns_of_tags_are_found_by_name():
    names = ("image", "ram_tags", "caption_tags", "ram_tag_scores", "phrases", "tags_of_mine")
    assert tag_columns(names) == ("caption_tags", "ram_tags")


def test_taggers_take_turns_and_say_a_thing_once():
    columns = {"a_tags": [b"dog", b"grass", b"sky"], "b_tags": [b"Dog", b"a red ball"]}
    names = ("a_tags", "b_tags")
    assert merged_tags(columns, names, 9) == ["dog", "grass", "a red ball", "sky"]
    assert merged_tags(columns, names[::-1], 2) == ["Dog", "a red ball"]
    assert merged_tags({"b_tags": [b"x"]}, names, 9) == ["x"], "a tagger had nothing"
