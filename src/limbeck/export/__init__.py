"""A trained model in the formats that other engines run."""

from limbeck.export.write import export

__all__ = ["export"]
