"""Limbeck: the workbench for model distillation, from both sides of it.

`limbeck.distill(recipe)` is the function; the modules behind it are imported as `from limbeck.distill.losses
import forward_kl`, for the package and its verb share a name.
"""

import limbeck.distill as _package  # bound first: importing its modules later must not hide the function
from limbeck.workbench import distill

__all__ = ["distill"]

del _package
