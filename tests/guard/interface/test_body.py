"""Bytes become one object, or a refusal; two readers can never read two things."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.interface.body import MAX_DEPTH, parse
from limbeck.guard.refusal import Refusal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=5)


@settings(deadline=None)
@given(OBJECTS, st.sampled_from([None, 1]), st.booleans())
def test_every_object_is_read_as_itself(
    value: dict[str, object], indent: int | None, ascii_only: bool
) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    read = parse(raw)
    assert isinstance(read, dict)
    assert orjson.dumps(read) == orjson.dumps(value)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_refusal(raw: bytes) -> None:
    read = parse(raw)
    if isinstance(read, Refusal):
        assert 400 <= read.status < 500
        assert orjson.loads(read.body)["error"]["message"]
    else:
        assert read == json.loads(raw)


@settings(deadline=None)
@given(OBJECTS.filter(bool), st.data())
def test_a_key_that_is_there_twice_is_refused_however_it_is_spelled(
    value: dict[str, object], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    escaped = (
        '"'
        + "".join(f"\\u{unit:04x}" for unit in memoryview(key.encode("utf-16-le")).cast("H"))
        + '"'
    )
    again = data.draw(st.sampled_from([json.dumps(key), escaped]))
    inner = json.dumps(value)[:-1] + f", {again}: 1}}"
    raw = data.draw(st.sampled_from([inner, f'{{"a":[{{"b":{inner}}}]}}'])).encode()
    read = parse(raw)
    assert isinstance(read, Refusal)
    assert read.code == "duplicate_key"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"text"',
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 01}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": 1} {"b": 2}',
        b"{'a': 1}",
        b'{"a": 1,}',
    ],
)
def test_what_is_not_one_json_object_is_refused(raw: bytes) -> None:
    assert isinstance(parse(raw), Refusal)


@pytest.mark.parametrize("deep", [MAX_DEPTH, 1000, 100_000])
def test_nesting_beyond_the_limit_is_refused(deep: int) -> None:
    assert isinstance(parse(b'{"a":' + b"[" * deep + b"]" * deep + b"}"), Refusal)


def test_nesting_up_to_the_limit_is_read_and_many_brackets_are_not_depth() -> None:
    deep = MAX_DEPTH - 1
    assert isinstance(parse(b'{"a":' + b"[" * deep + b"]" * deep + b"}"), dict)
    assert isinstance(parse(b'{"a":[' + b",".join([b"[]"] * 1000) + b"]}"), dict)


def test_a_number_of_five_thousand_digits_is_no_way_in() -> None:
    read = parse(b'{"a": ' + b"9" * 5000 + b"}")
    assert isinstance(read, Refusal | dict)
