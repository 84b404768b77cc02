"""Spans are made afterwards, under the caller's trace, without a word of anybody's text."""

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from limbeck.guard.config import TelemetryTable
from limbeck.guard.record import Facts
from limbeck.guard.telemetry import tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_request_is_a_span_with_its_times_and_tokens() -> None:
    exporter = InMemorySpanExporter()
    write = tracing(TelemetryTable(endpoint="http://127.0.0.1:1"), exporter, at_once=True)
    write(
        Facts(
            1.7e9,
            "a",
            "o",
            "",
            "k",
            "/v1/chat/completions",
            "m",
            200,
            False,
            0.25,
            9,
            3,
            "secret",
            "",
            "",
            "",
            None,
            "",
            (),
            False,
            f"00-{TRACE}-00f067aa0ba902b7-01",
        )
    )
    (span,) = exporter.get_finished_spans()
    assert span.name == "chat m"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert (span.end_time or 0) - (span.start_time or 0) == 250_000_000
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.usage.output_tokens"] == 3
    assert "secret" not in str(attributes)
