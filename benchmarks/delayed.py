"""An OpenAI-compatible endpoint on loopback that streams at a pace known beforehand."""

import json
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from loopback import Handler, serving


@dataclass(frozen=True, slots=True)
class Delays:
    """When the tokens of an answer come."""

    first_s: float
    """Seconds from the request to the first token."""
    token_s: float
    """Seconds from token to token."""
    tokens: int

    @property
    def seconds(self) -> float:
        """Seconds of a whole answer."""
        return self.first_s + (self.tokens - 1) * self.token_s


def serve_delayed(delays: Delays) -> AbstractContextManager[str]:
    """Serve the endpoint for the length of a block; the context is its base URL."""

    class Delayed(Handler):
        def do_POST(self) -> None:
            start = time.perf_counter()
            asked = self.body()
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for token in range(delays.tokens):
                # Until a deadline, not for a while: what one wait is late, the next makes good.
                due = start + delays.first_s + token * delays.token_s
                time.sleep(max(0.0, due - time.perf_counter()))
                self._event({"choices": [{"index": 0, "delta": {"content": "word "}}]})
            usage = {"prompt_tokens": len(asked), "completion_tokens": delays.tokens}
            self._event({"choices": [], "usage": usage})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")

        def _event(self, event: dict[str, Any]) -> None:
            self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    return serving(Delayed)
