import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import GuardError
from limbeck.guard.observation import Observation, Response
from limbeck.guard.traffic import (
    REMEMBERED,
    Intake,
    from_observation,
    parse_clock,
    read_lines,
    read_log,
    to_observation,
    write_clock,
)

LINE: dict[str, Any] = {
    "ts": "2026-11-24T12:00:00Z",
    "account": "a",
    "model": "m",
    "endpoint": "/v1/chat/completions",
    "request": {"messages": []},
}
NAME = st.text(min_size=1, max_size=8)


def read(*lines: dict[str, Any] | str, skip: bool = False) -> tuple[list[Observation], Intake]:
    intake = Intake()
    raw = [(line if isinstance(line, str) else json.dumps(line)).encode() for line in lines]
    return list(read_lines(raw, intake, source="log", skip_unreadable=skip)), intake


@settings(deadline=None)  # the machine may be busy
@given(
    ts=st.integers(0, 4_000_000_000_000_000).map(lambda us: us / 1e6),
    names=st.tuples(NAME, NAME, NAME),
    links=st.tuples(*[st.text(max_size=5)] * 5),
    response=st.none()
    | st.builds(Response, st.none() | st.text(max_size=9), st.none() | st.integers(0, 99)),
    declared=st.none() | NAME,
    attributes=st.dictionaries(NAME, NAME, max_size=2),
)
def test_a_line_says_all_of_an_observation(
    ts: float, names: tuple[str, str, str], links: tuple[str, ...], response: Response | None,
    declared: str | None, attributes: dict[str, str],
) -> None:  # fmt: skip
    account, model, endpoint = names
    org, ip, asn, user_agent, payment = links
    one = Observation(
        ts, account, org, model, endpoint, {"n": 1}, ip, asn, user_agent, payment, response, declared, attributes
    )  # fmt: skip
    back = to_observation(json.loads(json.dumps(from_observation(one))))
    assert back.ts == pytest.approx(one.ts, abs=1e-6)
    assert back == Observation(
        back.ts, account, org, model, endpoint, {"n": 1}, ip, asn, user_agent, payment, response, declared, attributes
    )  # fmt: skip


@pytest.mark.parametrize("name", ["ts", "account", "model", "endpoint", "request"])
def test_a_missing_field_is_named_with_its_line(name: str) -> None:
    with pytest.raises(GuardError, match=rf"log line 2: `{name}` is missing"):
        read(LINE, {k: v for k, v in LINE.items() if k != name})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ts", "yesterday", "RFC 3339"),
        ("ts", 1234567, "RFC 3339"),
        ("ts", "2026-11-24T12:00:00", "Z or an offset"),
        ("account", "", "must not be empty"),
        ("account", ["a"], "must be a string"),
        ("request", "hello", "must be an object"),
        ("response", [], "must be an object"),
        ("response", {"completion_tokens": -1}, "at least 0"),
        ("response", {"text": 3}, "must be a string"),
        ("attributes", 3, "must be an object"),
        ("colour", "red", "not a field"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(name: str, value: Any, said: str) -> None:
    with pytest.raises(GuardError, match=said) as raised:
        read(LINE | {name: value})
    assert name in str(raised.value)


def test_a_strangers_value_stays_short_in_the_message() -> None:
    with pytest.raises(GuardError) as raised:
        read(LINE | {"request": "x" * 10_000})
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("line", ["{", "[1]", "nonsense"])
def test_a_line_that_is_no_object_is_refused(line: str) -> None:
    with pytest.raises(GuardError, match="line 1"):
        read(line)


def test_unreadable_lines_are_counted_where_they_may_be_skipped() -> None:
    found, intake = read(LINE, "{", LINE | {"account": "b"}, skip=True)
    assert [one.account for one in found] == ["a", "b"]
    assert (intake.lines, intake.kept, intake.skipped) == (3, 2, 1)
    assert "line 2" in intake.first_skipped[0]


def test_the_same_line_twice_counts_once_and_so_does_the_same_id() -> None:
    found, intake = read(LINE, LINE, LINE | {"id": "1"}, LINE | {"id": "1", "account": "b"}, "")
    assert (len(found), intake.duplicates) == (2, 2)


def test_duplicates_are_noticed_in_bounded_memory() -> None:
    lines = [LINE | {"id": n} for n in range(REMEMBERED + 2)]
    _, intake = read(*lines, LINE | {"id": 0}, LINE | {"id": REMEMBERED + 1})
    assert intake.duplicates == 1


def test_late_lines_and_jumps_of_the_clock_are_kept_and_counted() -> None:
    times = ["2026-11-24T12:00:00Z", "2026-11-24T11:00:00Z", "2027-11-24T12:00:00Z"]
    found, intake = read(*(LINE | {"ts": ts} for ts in times))
    assert (len(found), intake.late, intake.jumps) == (3, 1, 1)
    assert "1 out of order, 1 jumps" in intake.summary()


def test_offsets_are_taken_into_account() -> None:
    assert parse_clock("2026-11-24T14:00:00+02:00") == parse_clock("2026-11-24T12:00:00Z")
    assert write_clock(parse_clock("2026-11-24T12:00:00.250Z")).endswith("12:00:00.250000Z")


def test_a_packed_log_reads_like_a_plain_one(tmp_path: Path) -> None:
    line = json.dumps(LINE).encode() + b"\n"
    plain, packed = tmp_path / "l.jsonl", tmp_path / "l.jsonl.gz"
    plain.write_bytes(line)
    packed.write_bytes(gzip.compress(line))
    assert list(read_log(plain)) == list(read_log(packed))


def test_a_log_that_is_missing_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="cannot be read"):
        list(read_log(tmp_path / "none"))
    (tmp_path / "empty").touch()
    with pytest.raises(GuardError, match="holds no request"):
        list(read_log(tmp_path / "empty"))
