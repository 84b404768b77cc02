"""Requests as OpenTelemetry spans, made by the keeper afterwards, so that the data path pays nothing for them."""

from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
)
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from limbeck.guard.config import TelemetryTable
from limbeck.guard.record import Facts

_NS = 1_000_000_000
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
}


def tracing(
    table: TelemetryTable, exporter: SpanExporter | None = None, *, at_once: bool = False
) -> Callable[[Facts], None]:
    """Return a function that turns facts into spans by the conventions for generative AI.

    Neither prompts nor answers are in them.
    """
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(table.share),
        resource=Resource.create({"service.name": "limbeck-guard"}),
    )
    sent_to = exporter or OTLPSpanExporter(endpoint=table.endpoint)
    processor = SimpleSpanProcessor(sent_to) if at_once else BatchSpanProcessor(sent_to)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("limbeck.guard")
    propagator = TraceContextTextMapPropagator()

    def write(facts: Facts) -> None:
        context = propagator.extract({"traceparent": facts.trace}) if facts.trace else None
        operation = _OPERATIONS.get(facts.endpoint, "chat")
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": facts.model,
            "http.response.status_code": facts.status,
            "limbeck.account": facts.account,
        }
        if facts.prompt_tokens is not None:
            attributes["gen_ai.usage.input_tokens"] = facts.prompt_tokens
        if facts.completion_tokens is not None:
            attributes["gen_ai.usage.output_tokens"] = facts.completion_tokens
        if facts.code:
            attributes["error.type"] = facts.code
        span = tracer.start_span(
            f"{operation} {facts.model}",
            context=context,
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=int(facts.ts * _NS),
        )
        span.end(int(facts.ts * _NS) + int(facts.seconds * _NS))

    return write
