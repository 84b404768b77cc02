"""Compile a student's layers, where that can be done."""

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from limbeck.errors import RecipeError
from limbeck.placement import device

_COMPILERS = ("g++", "clang++", "c++")


def check_compiles(processes: int) -> None:
    """Refuse to compile where it would fail after minutes, or was never tried.

    Raises:
        RecipeError: Several processes train, or a CPU student has no C++ compiler.
    """
    if processes > 1:
        raise RecipeError(
            f"train.compile = true goes with one process, and {processes} were launched; leave it out"
        )
    named = os.environ.get("CXX")
    if device().type == "cpu" and not any(map(shutil.which, [named] if named else _COMPILERS)):
        raise RecipeError(
            f"train.compile = true needs a C++ compiler, and {named or ', '.join(_COMPILERS)} is not on the path; "
            "install one (Debian: apt-get install g++) or leave it out"
        )


def compiled_hidden(hidden: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function that compiles itself at its first batch; an epoch's last, smaller batch compiles once more."""
    return torch.compile(hidden)
