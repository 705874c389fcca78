# SPDX-License-Identifier: Apache-2.0
"""The Example codec against protocol buffers."""

import struct

import numpy as np
import pytest
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

from input_pipeline import example

_LIMITS = [0, 1, -1, 127, 128, 300, -(2**63), 2**63 - 1, 2**31]


def _features():
    return {
        "bytes": b"\x00\xff",
        "text": "Île",
        "many": [b"", b"a" * 300],
        "integers": _LIMITS,
        "one": -7,
        "flag": True,
        "floats": [0.5, -1.25, float("inf")],
        "array": np.arange(6, dtype=np.float64).reshape(2, 3),
        "int32": np.array([[1, -2], [3, 4]], np.int32),
        "no_floats": np.zeros((0, 4), np.float32),
        "nothing": [],
        "": 1.5,
    }


def test_protocol_buffers_read_what_is_encoded():
    message = Example.FromString(example.encode(_features()))
    feature = message.features.feature
    assert feature["bytes"].bytes_list.value == [b"\x00\xff"]
    assert feature["text"].bytes_list.value == ["Île".encode()]
    assert feature["many"].bytes_list.value == [b"", b"a" * 300]
    assert feature["integers"].int64_list.value == _LIMITS
    assert feature["one"].int64_list.value == [-7]
    assert feature["flag"].int64_list.value == [1]
    assert feature["floats"].float_list.value == [0.5, -1.25, float("inf")]
    assert feature["array"].float_list.value == [0, 1, 2, 3, 4, 5]
    assert feature["int32"].int64_list.value == [1, -2, 3, 4]
    assert feature["no_floats"].WhichOneof("kind") == "float_list"
    assert feature["nothing"].WhichOneof("kind") is None
    assert feature[""].float_list.value == [1.5]
    assert len(feature) == len(_features())


def test_decodes_what_protocol_buffers_write():
    message = Example()
    feature = message.features.feature
    feature["bytes"].bytes_list.value.extend([b"x", b""])
    feature["integers"].int64_list.value.extend(_LIMITS)
    feature["floats"].float_list.value.extend([1.5, -2.0])
    feature["nothing"].Clear()
    columns = example.decode(message.SerializeToString())
    assert columns["bytes"] == [b"x", b""]
    assert columns["integers"].dtype == np.int64
    np.testing.assert_array_equal(columns["integers"], _LIMITS)
    assert columns["floats"].dtype == np.float32
    np.testing.assert_array_equal(columns["floats"], [1.5, -2.0])
    assert columns["nothing"] == []
    assert set(columns) == {"bytes", "integers", "floats", "nothing"}


def _delimited(field, data):
    return bytes([field << 3 | 2, len(data)]) + data


def _one_feature(kind, content):
    entry = _delimited(1, b"x") + _delimited(2, _delimited(kind, content))
    return _delimited(1, _delimited(1, entry))


def test_reads_numbers_that_are_not_packed():
    floats = _one_feature(2, b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2))
    integers = _one_feature(3, b"\x08\x05\x08\xac\x02" + b"\x08" + b"\xff" * 9 + b"\x01")
    assert Example.FromString(integers).features.feature["x"].int64_list.value == [5, 300, -1]
    np.testing.assert_array_equal(example.decode(floats)["x"], [1.5, -2.0])
    np.testing.assert_array_equal(example.decode(integers)["x"], [5, 300, -1])


def test_skips_unknown_fields():
    strange = b"\x78\x05" + b"\x71" + bytes(8) + b"\x75" + bytes(4) + _delimited(9, b"??")
    payload = strange + example.encode({"x": 3}) + strange
    assert example.decode(payload)["x"].tolist() == [3]


def test_decodes_only_the_keys_asked_for():
    columns = example.decode(example.encode(_features()), {"one", "text", "absent"})
    assert set(columns) == {"one", "text"}
    assert columns["text"] == ["Île".encode()]


def test_equal_features_give_equal_bytes():
    features = _features()
    backwards = dict(reversed(features.items()))
    assert example.encode(features) == example.encode(backwards)


@pytest.mark.parametrize("value", [object(), [b"a", 1], {"a": 1}, None, [[1, 2], [3]], 1j])
def test_refuses_what_an_example_cannot_hold(value):
    with pytest.raises((TypeError, ValueError)):
        example.encode({"x": value})


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_refuses_integers_beyond_int64(number):
    with pytest.raises(OverflowError, match="int64"):
        example.encode({"x": [number]})


def test_cut_payload_raises_or_loses_nothing_it_returns():
    """Every proper prefix either fails or decodes to a subset of whole columns."""
    payload = example.encode({"a": 1, "b": b"xyz"})
    for length in range(1, len(payload)):
        with pytest.raises(ValueError, match="not an Example"):
            example.decode(payload[:length])


@pytest.mark.parametrize("payload", [b"\x0b", b"\x0a\xff", b"\x0a" + b"\xff" * 11])
def test_refuses_other_bytes(payload):
    with pytest.raises(ValueError, match="not an Example"):
        example.decode(payload)
