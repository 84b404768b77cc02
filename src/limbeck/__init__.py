"""Limbeck: the workbench for model distillation, from both sides of it.

`limbeck.distill(recipe)` and `limbeck.validate(...)` are functions; the modules behind them are imported as `from
limbeck.distill.losses import forward_kl`, for a package and its verb share a name.
"""

import limbeck.distill as _distill  # bound first: importing their modules later must not hide the functions
import limbeck.validate as _validate
from limbeck.workbench import distill, validate

__all__ = ["distill", "validate"]

del _distill, _validate
