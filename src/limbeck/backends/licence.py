"""The licence that a model's own files state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from limbeck.artefact import read_json

_FENCE = "---"

# Hub identifiers are lower-case; SPDX writes these so.
_SPDX = {
    name.lower(): name
    for name in (
        "AFL-3.0",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC-BY-4.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-ND-4.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-ND-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MPL-2.0",
        "Unlicense",
    )
}


def licence_of(folder: Path) -> str | None:
    """Return the licence that a model folder's card or configuration names, or None.

    The card is README.md with YAML front matter; its `license: other` points on to `license_name`. Well-known
    names come back in SPDX spelling, others as they are written.
    """
    card = folder / "README.md"
    if card.is_file() and (
        stated := _stated(front_matter(card.read_text(encoding="utf-8", errors="replace")))
    ):
        return stated
    return _stated(read_json(folder / "config.json"))


def front_matter(markdown: str) -> Mapping[str, Any]:
    """Return the YAML mapping between the two `---` lines that open a model card; empty without one."""
    lines = markdown.splitlines()
    if not lines or lines[0].strip() != _FENCE:
        return {}
    end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == _FENCE), None)
    if end is None:
        return {}
    try:
        found = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError:
        return {}  # a card that cannot be read states nothing
    return found if isinstance(found, dict) else {}


def _stated(source: Mapping[str, Any]) -> str | None:
    value = source.get("license", source.get("licence"))
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.lower() == "other":
        value = source.get("license_name")
    if not isinstance(value, str) or value.lower() in ("", "unknown", "other"):
        return None
    return _SPDX.get(value.lower(), value)
