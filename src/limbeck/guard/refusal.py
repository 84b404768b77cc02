"""A request that is answered by the gateway itself, in the form of an OpenAI error."""

from dataclasses import dataclass

import orjson

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further, as its sender reads it.

    `message` is one sentence that names the thing, its value and what would be right; `code` is stable, for
    programs; `param` names the parameter at fault. `retry_after_s` is set where waiting helps.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    kind: str = "invalid_request_error"
    retry_after_s: int | None = None

    @property
    def body(self) -> bytes:
        """Return the reply's body."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return orjson.dumps({"error": error})

    @property
    def headers(self) -> list[Header]:
        """Return the reply's headers, without its length."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_s))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


def wrong(param: str, right: str) -> Refusal:
    """Return the refusal of a parameter whose value is not what it must be."""
    return Refusal(400, "invalid_value", f"{param} must be {right}", param)
