"""What the system holds in RAM for this process, where it says so (Linux)."""

from pathlib import Path


def resident_bytes(field: str = "VmRSS") -> int | None:
    """Return a field of /proc/self/status in bytes, such as VmRSS or its peak VmHWM; None where there is no such file."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(lines[field].split()[0]) * 1024


def reset_peak() -> None:
    """Let the peak begin anew at what is held now."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5", encoding="ascii")
