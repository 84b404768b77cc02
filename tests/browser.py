"""A headless Chromium, driven over its own protocol: what tests of pages need and no more."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_PATIENCE_S = 60.0


class Browser:
    """Owns a Chromium with one page, and the loop on which its messages travel."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        if found is None:
            pytest.skip("chromium is not installed (Debian: chromium)")
        self._process = subprocess.Popen(
            [
                found,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._loop.run_until_complete(self._connect(folder / "DevToolsActivePort"))
        self.call("Page.enable")

    def close(self) -> None:
        self._loop.run_until_complete(self._disconnect())
        self._loop.close()
        self._process.kill()
        self._process.wait()

    def call(self, method: str, **params: Any) -> Any:
        """Call the protocol and return its result."""
        return self._loop.run_until_complete(self._call(method, params))

    def open(self, url: str) -> None:
        self._and_wait_for_load(lambda: self._call("Page.navigate", {"url": url}))

    def run(self, script: str) -> Any:
        """Evaluate a script on the page, from outside of it: pages may forbid scripts, this is none of theirs."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        return str(self.run("document.body.innerText"))

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, loads: bool = False) -> None:
        """Press a key of the keyboard; with `loads`, wait for the page that it leads to."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        event: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"Enter": "\r", " ": " "}.get(key)

        async def stroke() -> None:
            down = {"type": "keyDown", **event, **({"text": text} if text else {})}
            await self._call("Input.dispatchKeyEvent", down)
            await self._call("Input.dispatchKeyEvent", {"type": "keyUp", **event})

        if loads:
            self._and_wait_for_load(stroke)
        else:
            self._loop.run_until_complete(stroke())

    def focused(self) -> str:
        """Return what has the keyboard's focus: its text, label or name."""
        return str(
            self.run(
                "(e => (e.innerText || e.getAttribute('aria-label') || e.name || e.tagName).trim())"
                "(document.activeElement)"
            )
        )

    def scheme(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def size(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def picture(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def _connect(self, port_file: Path) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not port_file.exists() or not port_file.read_text("ascii").strip():
            assert time.monotonic() < until, "chromium did not start"
            await asyncio.sleep(0.05)
        port = port_file.read_text("ascii").split()[0]
        self._client = aiohttp.ClientSession()
        async with self._client.get(f"http://127.0.0.1:{port}/json") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        self._socket = await self._client.ws_connect(
            pages[0]["webSocketDebuggerUrl"], max_msg_size=1 << 28
        )
        self._events: list[str] = []

    async def _disconnect(self) -> None:
        await self._socket.close()
        await self._client.close()

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = await self._receive()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def _receive(self) -> Any:
        message = json.loads(await self._socket.receive_str(timeout=_PATIENCE_S))
        if "method" in message:
            self._events.append(message["method"])
        return message

    def _and_wait_for_load(self, act: Any) -> None:
        async def both() -> None:
            self._events.clear()
            await act()
            while "Page.loadEventFired" not in self._events:
                await self._receive()

        self._loop.run_until_complete(both())
