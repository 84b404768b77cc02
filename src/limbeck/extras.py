"""Optional packages: there, or one sentence that says how to get them."""

import importlib.util

from limbeck.errors import MissingDependencyError


def need(what: str, extra: str, *packages: str) -> None:
    """Check that the packages of an extra can be imported, without importing them.

    Args:
        what: What needs them, as the user calls it.
        extra: The extra of this project that brings them.
        packages: Their import names.

    Raises:
        MissingDependencyError: One is not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"{what} needs the package {missing[0]}: pip install 'limbeck[{extra}]'"
        )
