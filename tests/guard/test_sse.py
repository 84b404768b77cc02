"""Events are found at whatever byte the stream is cut."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.sse import Events, payload, with_payload

END = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINE = st.sampled_from(
    [b"data: {}", b"data:x", b"data", b": ping", b"event: delta", b"id: 7", "data: ü".encode()]
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    end = draw(END)
    events = draw(st.lists(st.lists(LINE, min_size=1, max_size=3), min_size=1, max_size=5))
    written = [b"".join(line + end for line in lines) + end for lines in events]
    return b"".join(written), written


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@settings(deadline=None)
@given(streams(), st.lists(st.integers(0, 10_000), max_size=8))
def test_events_are_the_same_wherever_the_stream_is_cut(
    made: tuple[bytes, list[bytes]], places: list[int]
) -> None:
    stream, written = made
    events = Events()
    found = [event for piece in cut(stream, places) for event in events.feed(piece)]
    assert b"".join(found) + events.rest == stream
    # A carriage return at the end of a piece may be half a line end; the other half then leads the next event.
    assert [payload(event) for event in found] == [payload(event) for event in written]


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_no_byte_is_lost_or_added(stream: bytes, places: list[int]) -> None:
    events = Events()
    found = [event for piece in cut(stream, places) for event in events.feed(piece)]
    assert b"".join(found) + events.rest == stream


def test_data_of_several_lines_is_joined() -> None:
    assert payload(b"event: x\ndata: a\ndata:b\ndata\n\n") == b"a\nb\n"
    assert payload(b": nothing\n\n") is None


def test_other_data_keeps_the_other_fields_and_the_line_ends() -> None:
    assert with_payload(b"event: x\r\ndata: old\r\ndata: older\r\nid: 1\r\n\r\n", b"new") == (
        b"event: x\r\ndata: new\r\nid: 1\r\n\r\n"
    )
    assert payload(with_payload(b"data: a\n\n", b"{}")) == b"{}"
