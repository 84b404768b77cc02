"""One file per way to reach a model."""

from limbeck.backends.folder import load_tokenizer
from limbeck.backends.spec import load

__all__ = ["load", "load_tokenizer"]
