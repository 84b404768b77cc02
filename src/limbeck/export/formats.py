"""Which formats a model can be exported to, and which number formats each of them holds."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from limbeck.errors import ExportError

Format = Literal["safetensors", "gguf", "onnx"]

QUANTISATIONS: dict[Format, tuple[str, ...]] = {
    "safetensors": ("float32", "bfloat16", "float16"),
    "gguf": ("f32", "bf16", "f16", "q8_0", "q5_0", "q4_0"),
    "onnx": ("int8",),
}
"""Number formats of the weights on request; without a request they keep their own, in ONNX float32."""


@dataclass(frozen=True, slots=True)
class Target:
    """A format with a number format that it holds."""

    format: Format
    quantise: str | None
    """None keeps the weights as they are."""


def parse_target(to: str, quantise: str | None) -> Target:
    """Return what was asked for.

    Raises:
        ExportError: A format that is not known, or that does not hold such numbers.
    """
    if to not in get_args(Format):
        raise ExportError(f"--to must be one of {', '.join(get_args(Format))}, got {to}")
    known = QUANTISATIONS[cast("Format", to)]
    if quantise is not None and quantise not in known:
        raise ExportError(
            f"--quantise with --to {to} must be one of {', '.join(known)}, got {quantise}"
        )
    return Target(cast("Format", to), quantise)
