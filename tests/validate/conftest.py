"""The tiny teacher, loaded."""

from pathlib import Path

import pytest

from limbeck.backends import load
from limbeck.model import LocalModel


@pytest.fixture(scope="session")
def tiny_local(tiny_teacher_folder: Path) -> LocalModel:
    """The tiny teacher; read it, never change it."""
    return load(str(tiny_teacher_folder), dtype="float32")
