"""The name by which a user calls a model, and the backend that answers to it."""

from pathlib import Path

from limbeck.backends.folder import Dtype, load_folder
from limbeck.backends.hub import load_hub
from limbeck.backends.packaged import load_packaged
from limbeck.errors import TeacherError
from limbeck.model import LocalModel

_API = "openai:"
_HUB = "hf:"
_PACKAGED = "packaged:"


def load(spec: str, *, dtype: Dtype, base: Path | None = None) -> LocalModel:
    """Load a causal language model onto this machine, in evaluation mode.

    Args:
        spec: A `transformers` folder, `hf:org/name` or `hf:org/name@revision`, or
            `packaged:smollm2-135m-instruct`.
        dtype: `float32` or `bfloat16`.
        base: What a relative folder is relative to; None takes the working directory.

    Raises:
        TeacherError: Nothing loadable lies there; the sentence says what is missing.
        MissingDependencyError: The package that carries the model is not installed.
    """
    if spec.startswith(_HUB):
        return load_hub(spec.removeprefix(_HUB), name=spec, dtype=dtype)
    if spec.startswith(_API):
        raise TeacherError(
            f"model {spec} is behind an API, and a model on this machine is needed here; only a recipe's teacher or "
            "judge may be behind one"
        )
    if spec.startswith(_PACKAGED):
        return load_packaged(spec.removeprefix(_PACKAGED), name=spec, dtype=dtype)
    folder = (base or Path()) / Path(spec).expanduser()
    return load_folder(folder, name=spec, dtype=dtype)
