"""Which formats hold which numbers."""

import pytest

from limbeck.errors import ExportError
from limbeck.export.formats import QUANTISATIONS, Target, parse_target


def test_every_listed_pair_and_none_is_a_target() -> None:
    for to, numbers in QUANTISATIONS.items():
        for quantise in (*numbers, None):
            assert parse_target(to, quantise) == Target(to, quantise)


@pytest.mark.parametrize(
    ("to", "quantise", "words"),
    [
        ("mlx", None, "--to must be one of safetensors, gguf, onnx, got mlx"),
        ("gguf", "int8", "--quantise with --to gguf must be one of f32, .* got int8"),
        ("safetensors", "q8_0", "must be one of float32, bfloat16, float16, got q8_0"),
    ],
)
def test_anything_else_is_refused_with_what_is_known(
    to: str, quantise: str | None, words: str
) -> None:
    with pytest.raises(ExportError, match=words):
        parse_target(to, quantise)
