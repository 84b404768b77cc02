import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.encoding import (
    canonical,
    field,
    from_base64,
    from_time,
    hash32,
    parse,
    to_base64,
    to_time,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_reads_back(value: Any) -> None:
    assert parse(canonical(value), "it") == value


@given(JSON)
def test_any_other_spelling_of_the_same_value_is_refused(value: Any) -> None:
    for other in (json.dumps(value, indent=1), json.dumps(value) + " "):
        if other.encode() != canonical(value):
            with pytest.raises(LedgerError, match="it is not canonical JSON"):
                parse(other.encode(), "it")


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":1}', '{"a":NaN}', "[1,]", '{"b":1,"a":1}', "1.50", '"\\u0041"', "[" * 9999]
)
def test_what_decoders_forgive_is_refused(text: str) -> None:
    with pytest.raises(LedgerError, match="it is not"):
        parse(text.encode(), "it")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "\ud800", b"bytes"])
def test_what_is_not_json_is_not_written(value: Any) -> None:
    with pytest.raises(LedgerError, match="a record must be JSON"):
        canonical(value)


@given(st.binary(max_size=80))
def test_base64_reads_back(data: bytes) -> None:
    assert from_base64(to_base64(data), "it") == data


@pytest.mark.parametrize("text", ["QQ=", "QR==", "QQ==\n", "Q Q=", "é", "_-_-"])
def test_base64_with_stray_bits_or_characters_is_refused(text: str) -> None:
    with pytest.raises(LedgerError, match="it is not"):
        from_base64(text, "it")


@given(st.integers(0, 253_402_300_799_999))
def test_a_time_reads_back(ms: int) -> None:
    assert from_time(to_time(ms), "it") == ms


@pytest.mark.parametrize(
    "text",
    ["2026-11-24T13:35:20Z", "2026-11-24T13:35:20.1234Z", "2026-11-24T13:35:20.120000Z", "1969-12-31T23:59:59.000Z", ""],
)  # fmt: skip
def test_a_time_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(LedgerError, match="it must be a time such as"):
        from_time(text, "it")


@pytest.mark.parametrize("ms", [-1, 253_402_300_800_000])
def test_a_time_outside_the_calendar_is_refused(ms: int) -> None:
    with pytest.raises(LedgerError, match="the years 1970 to 9999"):
        to_time(ms)


@pytest.mark.parametrize(
    ("row", "words"), [({}, "lacks the field 'a'"), (3, "lacks"), ({"a": True}, "must have a int")]
)
def test_a_field_must_be_there_with_its_type(row: Any, words: str) -> None:
    with pytest.raises(LedgerError, match=words):
        field(row, "a", int, "it")


@pytest.mark.parametrize("text", ["QQ==", 7, None])
def test_a_hash_has_32_bytes(text: Any) -> None:
    with pytest.raises(LedgerError, match="it must be 32 bytes in base64"):
        hash32(text, "it")
