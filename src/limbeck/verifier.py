"""A function of the user's that accepts or rejects answers: named on the command line or given in Python.

Recipes name no code: whoever runs one says which code runs. A run records the function's name and the hash of its source.
"""

import hashlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.artefact import sha256_file
from limbeck.errors import FilterError


@dataclass(frozen=True, slots=True)
class NamedVerifier:
    """A verifier with what a run records of it."""

    name: str
    """`FILE.py:function`, or the function's own name with its module."""
    sha256: str | None
    """Of the source; None where Python does not know it."""
    call: Callable[[Any], object]

    @property
    def identity(self) -> dict[str, str | None]:
        """What decides its verdicts, as far as one can know."""
        return {"name": self.name, "sha256": self.sha256}


def load_verifier(spec: str) -> NamedVerifier:
    """Run a file and return the function that is named in it.

    Args:
        spec: `FILE.py:function`.

    Raises:
        FilterError: No such file or function, or the file fails.
    """
    place, colon, function = spec.rpartition(":")
    path = Path(place)
    if not colon or not function.isidentifier() or path.suffix != ".py":
        raise FilterError(f"--verify must have the form FILE.py:function, got {spec!r}")
    if not path.is_file():
        raise FilterError(f"--verify {spec}: file {path} does not exist")
    module_spec = importlib.util.spec_from_file_location(f"limbeck_verifier_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise FilterError(f"--verify {spec}: {path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # code of the user's: whatever it raises is told with its place
        raise FilterError(
            f"--verify {spec}: {path} fails: {type(error).__name__}: {error}"
        ) from error
    call = getattr(module, function, None)
    if not callable(call):
        raise FilterError(f"--verify {spec}: {path} has no function {function}")
    return NamedVerifier(f"{path.name}:{function}", sha256_file(path), call)


def as_verifier(call: Callable[[Any], object] | NamedVerifier) -> NamedVerifier:
    """Return a function as a verifier, named by its module and name."""
    if isinstance(call, NamedVerifier):
        return call
    try:
        source = hashlib.sha256(inspect.getsource(call).encode()).hexdigest()
    except (OSError, TypeError):
        source = None
    name = getattr(call, "__qualname__", type(call).__qualname__)
    return NamedVerifier(f"{getattr(call, '__module__', '?')}:{name}", source, call)
