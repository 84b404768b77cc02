"""An ONNX graph with a key-value cache, by the exporter of `transformers`, for ONNX Runtime."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from limbeck.errors import ExportError
from limbeck.extras import need
from limbeck.model import LocalModel
from limbeck.pretrained import quiet, save_tokenizer

_PROBE_ROWS, _PROBE_TOKENS = 2, 3


def write_onnx(local: LocalModel, folder: Path, quantise: str | None) -> tuple[str, ...]:
    """Write `model.onnx` with its weights, the configurations and the tokenizer.

    The graph reads any number of new tokens after any number of cached ones, none among them: inputs are
    `input_ids` and `position_ids` [B, T] and a cache `input.past_key_values.layers.*` [B, heads, S, width];
    outputs are `logits` [B, T, V] and the longer cache. Rows are not padded.

    Args:
        local: The model; the graph's numbers are float32 whatever its own are.
        folder: An empty folder.
        quantise: `int8` (ONNX Runtime's dynamic quantisation: weights and, while it runs, activations), or
            None.

    Returns:
        Nothing that a reader must know.

    Raises:
        ExportError: The exporter cannot trace the model.
        MissingDependencyError: A package of the extra is not installed.
    """
    need("--to onnx", "onnx", "onnx", "onnxscript", "onnxruntime")
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter
    from transformers.exporters.utils import decompose_for_generation

    model = copy.deepcopy(local.model).float().eval()
    ids_BT = torch.arange(_PROBE_ROWS * _PROBE_TOKENS).reshape(_PROBE_ROWS, -1)
    probe = {
        "input_ids": ids_BT % model.config.vocab_size,
        "attention_mask": torch.ones_like(ids_BT),
    }
    try:
        with _in_silence():
            parts: Any = decompose_for_generation(model, probe, multi_token_decode=True)
            decoder, inputs = parts["decode"]
            config = OnnxConfig(dynamic=True, quantizer=_quantizer(quantise))
            exported = OnnxExporter().export(decoder, inputs, config)
            exported.save_pretrained(folder)
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ExportError(
            f"--to onnx cannot trace {type(model).__name__}: {_first(error)}"
        ) from error
    with quiet():
        model.generation_config.save_pretrained(folder)
        save_tokenizer(local.tokenizer, folder)
    return ()


def _first(error: BaseException) -> str:
    """Return the first line of what went wrong first; the exporter wraps it more than once."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _quantizer(quantise: str | None) -> Any:
    if quantise is None:
        return None
    from transformers.exporters.quantizers.quantizer_onnxruntime import (
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
    )

    return OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True))


@contextlib.contextmanager
def _in_silence() -> Generator[None]:
    """Keep back what tracing prints: progress, and warnings on versions and on operators that are not used."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with (
            quiet(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        registration.setLevel(level)
