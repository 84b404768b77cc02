"""The reference of recipe keys, written from the fields themselves: `python -m limbeck.distill.reference`."""

import sys
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from limbeck.distill.recipe import Recipe

_INTRODUCTION = """# Recipe keys

A recipe is TOML; `name`, `[teacher]`, `[corpus]` and `[student]` must be there. Any key can be overridden on the command
line, as in `--set train.epochs=2`. An unknown key is an error. This page is written by
`python -m limbeck.distill.reference` from the fields in `distill/recipe.py`.
"""


def reference() -> str:
    """Return the reference as Markdown."""
    return "\n".join([_INTRODUCTION, *_section("", Recipe)])


def _section(path: str, section: type[BaseModel]) -> Iterator[str]:
    yield f"## [{path}]\n" if path else "## Top level\n"
    if path:
        yield f"{_flat(section.__doc__)}\n"
    values = {n: f for n, f in section.model_fields.items() if _subsection(f) is None}
    if values:
        yield "| key | type | default | meaning |\n|---|---|---|---|"
        for name, field in values.items():
            yield f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {_flat(field.description)} |"
        yield ""
    for name, field in section.model_fields.items():
        below = _subsection(field)
        if below is not None:
            key = field.alias or name
            yield from _section(f"{path}.{key}" if path else key, below)


def _subsection(field: FieldInfo) -> type[BaseModel] | None:
    candidates: list[Any] = [field.annotation, *get_args(field.annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _type(annotation: Any) -> str:
    if annotation is type(None):
        return "absent"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(a) for a in inner if a is not type(None))
    if origin is tuple:
        return "list of " + _type(inner[0])
    if origin is dict:
        return f"table of {_type(inner[1])}"
    if hasattr(annotation, "__metadata__"):
        return _type(inner[0])
    name = str(annotation.__name__)
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        name, name
    )


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "needed"
    match field.default:
        case None:
            return "absent"
        case bool():
            return f"`{str(field.default).lower()}`"
        case ():
            return "none"
        case {}:
            return "none"
        case tuple():
            return "`[" + ", ".join(map(str, field.default)) + "]`"
        case _:
            return f"`{_flat(str(field.default))}`"


def _flat(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
