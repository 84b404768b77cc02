"""One file per way to reach a model."""

from limbeck.backends.spec import load

__all__ = ["load"]
