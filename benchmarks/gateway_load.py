"""Load on a gateway, and what it costs: wrk at full speed, a steady pace with exact times, processor time, memory."""

import asyncio
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
SCRIPT = """
local keys, n, body = {}, 0, io.open(os.getenv("WRK_BODY")):read("*a")
for line in io.lines(os.getenv("WRK_KEYS")) do keys[#keys + 1] = line end
request = function()
  n = n + 1
  return wrk.format("POST", "/v1/chat/completions",
    {["Authorization"] = "Bearer " .. keys[n % #keys + 1], ["Content-Type"] = "application/json"}, body)
end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format('JSON {"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"bad":%d}\\n', s.requests,
    s.duration / 1e6, l:percentile(50) / 1e3, l:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What a burst of requests came to."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    bad: int


def burst(
    port: int, body: Path, keys: Path, *, seconds: int, connections: int, place: Path
) -> Load:
    """Send as many requests as go through, with wrk on one thread."""
    script = place / "burst.lua"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "20s",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}",
        ],
        env=os.environ | {"WRK_BODY": str(body), "WRK_KEYS": str(keys)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("JSON "))[5:]
    )
    return Load(
        said["requests"],
        said["requests"] / said["seconds"],
        said["p50_ms"],
        said["p99_ms"],
        said["bad"],
    )


async def paced(port: int, request: bytes, *, count: int, per_s: float) -> list[float]:
    """Send requests at a steady pace over one connection; return each one's seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken: list[float] = []
    due = time.perf_counter()
    for _ in range(count):
        due += 1 / per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        since = time.perf_counter()
        writer.write(request)
        await whole_reply(reader)
        taken.append(time.perf_counter() - since)
    writer.close()
    return taken


async def whole_reply(reader: asyncio.StreamReader) -> bytes:
    """Read one reply, with a length or in chunks; return its status line and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = head.split(b"\r\n", 1)[0]
    if b"content-length:" in head:
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        return status + b"\n" + await reader.readexactly(length)
    parts: list[bytes] = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return status + b"\n" + b"".join(parts)


def family(pid: int) -> list[int]:
    """Return a process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def processor_s(pid: int) -> float:
    """Return the processor seconds of a process and all that it started, those that ended left out."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_mb(pid: int) -> float:
    """Return the memory of a process and all that it started, pages that they share counted once (PSS)."""
    total = 0
    for one in family(pid):
        rollup = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8")
        total += int(
            next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1]
        )
    return total / 1024
