"""What a flow asks of a model that was loaded onto this machine."""

from dataclasses import dataclass
from typing import Any

# Imported for names alone: `Any` keeps this module free of torch, which guarding must not need.


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A causal language model with its tokenizer, in this process."""

    name: str
    """How the user named it, such as `packaged:smollm2-135m-instruct`."""
    model: Any
    """A `transformers.PreTrainedModel` in evaluation mode."""
    tokenizer: Any
    """A `transformers.PreTrainedTokenizerBase`."""
    weights_sha256: str
    """Hash over the files the weights came from."""
    tokenizer_sha256: str
    """Hash over the vocabulary, merges and special tokens: equal means that text becomes equal tokens."""
    licence: str | None
    """Licence that the model's own files or package state, as an SPDX identifier where there is one."""
    source: str | None
    """Where the weights came from: a package with its version, a hub name, or a folder's name."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model behind an API: what can be said of it without its weights."""

    name: str
    """How the user named it, such as `openai:some-model`."""
    source: str | None
    """The host that serves it."""
    licence: None = None
    """Nothing states it: the recipe must say under which terms its outputs may train a model."""
    weights_sha256: None = None
