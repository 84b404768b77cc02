"""What a server's reply means: an answer, a reason to ask again, or a reason to stop. Pure; sends nothing."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from limbeck.backends.ask import Ask
from limbeck.chat import Choice, Completion
from limbeck.errors import RefusedError, TeacherError

_SHOWN = 300
"""Characters of a server's words that an error repeats."""
_NEVER = -9000.0
"""Log-probabilities at and below this are a server's sign for none at all."""
_BUSY = frozenset({408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529})
_REFUSED = frozenset({401, 402, 403})
_TOO_LARGE = frozenset({400, 413, 422})
_ENDED = {"eos": "stop", "eos_token": "stop", "end_turn": "stop", "max_tokens": "length"}
_FORBIDDEN = re.compile(r"suspend|terminat|not (allow|permit|authori)|forbid|denied", re.IGNORECASE)
_QUOTA = re.compile(
    rf"quota|billing|credit|payment|insufficient|{_FORBIDDEN.pattern}", re.IGNORECASE
)
_CONTEXT = re.compile(
    r"context.?(length|size|window)|prompt is too long|too many tokens|maximum (model )?length",
    re.IGNORECASE,
)
# What follows a model's name when a server spells the snapshot or revision out.
_SNAPSHOT = re.compile(r"@.+|-\d{4}-\d{2}-\d{2}|-\d{4,8}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The server answered."""

    completion: Completion


@dataclass(frozen=True, slots=True)
class Again:
    """Nothing usable came, and a later try may do better."""

    why: str
    after: float | None = None
    """Seconds that the server asks to wait."""
    lost: bool = False
    """Whether an answer may have been written, and charged, that did not arrive."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Going on makes no sense, or is not wanted."""

    error: TeacherError


Outcome = Answered | Again | Stop


def read_reply(
    ask: Ask, reply: Reply, *, where: str, served_as: str | None, now: datetime
) -> Outcome:
    """Decide what a reply means.

    Args:
        ask: What was asked.
        reply: What came.
        where: The server's address, for messages.
        served_as: Name under which the server may answer, where it is not the one asked for.
        now: Aware time, to which a `Retry-After` date refers.
    """
    if reply.status == 200:
        return _read_success(ask, reply, where, served_as)
    return _read_failure(ask, reply, where, now)


def _read_failure(ask: Ask, reply: Reply, where: str, now: datetime) -> Outcome:
    said, code = _words(reply.body)
    heard = f"{where} answers {reply.status} for model {ask.model}: {said}"
    if _is_no(reply.status, code, said):
        return Stop(RefusedError(f"{heard}. Limbeck stops here and does not try again"))
    if reply.status in _TOO_LARGE and _CONTEXT.search(f"{code} {said}"):
        return Answered(Completion("", "beyond_context", ask.model, 0, 0))
    if reply.headers.get("x-should-retry") == "false":
        return Stop(TeacherError(heard))
    if reply.status == 429 or reply.status in _BUSY:
        return Again(heard, _retry_after(reply.headers, now), lost=reply.status in (502, 504, 524))
    if reply.status in (301, 302, 303, 307, 308):
        place = reply.headers.get("location", "elsewhere")
        return Stop(
            TeacherError(
                f"{where} sends on to {place}; that is not followed, for the key would go along: "
                "set teacher.api.base_url to the address that is meant"
            )
        )
    return Stop(TeacherError(heard))


def _is_no(status: int, code: str, said: str) -> bool:
    """Tell whether a server says no to us, not merely later.

    Of the replies with 429 those that call themselves a rate limit mean later, though they may advertise
    a larger one for payment; where neither code nor words tell, it is later too.
    """
    if status != 429:
        return status in _REFUSED
    words = _FORBIDDEN if "rate_limit" in code.lower() else _QUOTA
    return words.search(f"{code} {said}") is not None


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110, section 10.2.3): a number, or a date."""
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def _words(body: bytes) -> tuple[str, str]:
    """Return what an error's body says to a person, and its code."""
    text = body.decode("utf-8", errors="replace")
    code = ""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        inner = value.get("error", value)
        if isinstance(inner, dict):
            code = f"{inner.get('code', '')} {inner.get('type', '')}"
            inner = inner.get("message", inner.get("detail", inner))
        text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
    elif _is_page(text):
        text = re.sub(
            r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE
        )
    plain = " ".join(text.split()).rstrip(".")
    return (plain[:_SHOWN] or "nothing"), code.strip()


def _is_page(text: str) -> bool:
    return text.lstrip()[:64].lower().startswith(("<!doctype", "<html", "<head", "<body", "<?xml"))


def _read_success(ask: Ask, reply: Reply, where: str, served_as: str | None) -> Outcome:
    text = reply.body.decode("utf-8", errors="replace")
    try:
        value = json.loads(text)
    except ValueError:
        if _is_page(text) or "html" in reply.headers.get("content-type", ""):
            return Stop(
                TeacherError(
                    f"{where} answers with a page, not JSON: {_words(reply.body)[0]}; is it the address of an "
                    "OpenAI-compatible API? Such ones mostly end in /v1"
                )
            )
        return Again(f"{where} answers with JSON that is cut off or broken", lost=True)
    try:
        return _read_value(ask, value, where, served_as)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        kind = type(error).__name__
        return Again(f"{where} answers in no form of the protocol ({kind}: {error})", lost=True)


def _read_value(ask: Ask, value: Any, where: str, served_as: str | None) -> Outcome:
    if "error" in value and "choices" not in value:  # some gateways report failures with status 200
        code = value["error"].get("code") if isinstance(value["error"], dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        failed = Reply(status, {}, json.dumps(value).encode())
        return _read_failure(ask, failed, where, datetime.now(UTC))
    model = str(value["model"]) if value.get("model") else ask.model
    if not same_model(ask.model, model, served_as):
        return Stop(
            TeacherError(
                f"{where} answered as model {model}, but {ask.model} was asked for; if that is the same model, "
                f'set served_as = "{model}" in the section of this API'
            )
        )
    usage: Mapping[str, Any] = value.get("usage") or {}
    counts = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    choices: Sequence[Any] = value["choices"]
    if not choices:
        return Answered(Completion("", "none", model, *counts))
    choice = choices[0]
    finish = str(choice.get("finish_reason") or "unknown")
    finish = _ENDED.get(finish, finish)
    if "prompt_logprobs" in ask.body:
        return _read_scores(ask, value, choice, where, Completion("", finish, model, *counts))
    text = _whole(str(choice["message"].get("content") or ""))
    if "top_logprobs" not in ask.body:
        return Answered(Completion(text, finish, model, *counts))
    said = (choice.get("logprobs") or {}).get("content")
    if text and not said:
        return Stop(
            TeacherError(
                f"{where} was asked for {ask.body['top_logprobs']} top_logprobs and model {model} gives none; take "
                'teacher.api.top_logprobs out and set loss.kind = "cross_entropy" to learn from its text alone'
            )
        )
    heard = tuple(_choice(item) for item in said or ())
    return Answered(Completion(text, finish, model, *counts, choices=heard))


def same_model(asked: str, said: str, served_as: str | None) -> bool:
    """Tell whether a server's name for a model is the one asked for, perhaps with its snapshot or revision."""
    if said in (asked, served_as):
        return True
    return said.startswith(asked) and _SNAPSHOT.fullmatch(said[len(asked) :]) is not None


def _choice(item: Mapping[str, Any]) -> Choice:
    logprob = float(item["logprob"])
    top = [(_bytes(t), min(0.0, float(t["logprob"]))) for t in item.get("top_logprobs") or ()]
    return Choice(
        token=_bytes(item),
        logprob=min(0.0, logprob) if logprob > _NEVER else None,
        top=tuple(sorted((t for t in top if t[1] > _NEVER), key=lambda t: -t[1])),
    )


def _bytes(item: Mapping[str, Any]) -> bytes:
    stated = item.get("bytes")
    return bytes(stated) if stated is not None else _whole(str(item["token"])).encode()


def _whole(text: str) -> str:
    """Replace lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_scores(
    ask: Ask, value: Mapping[str, Any], choice: Mapping[str, Any], where: str, plain: Completion
) -> Outcome:
    scores = choice.get("prompt_logprobs") or value.get("prompt_logprobs")
    if not scores:
        return Stop(
            TeacherError(
                f"{where} was asked for prompt_logprobs and model {plain.model} gives none; that is an extension of "
                "vLLM's server: let the teacher write instead, with a [generate] section"
            )
        )
    if len(scores) != len(ask.body["prompt"]):
        raise ValueError(f"{len(scores)} scores for {len(ask.body['prompt'])} tokens")
    places = tuple(tuple(_scored(place)) for place in scores[1:])
    return Answered(
        Completion(
            "",
            plain.finish,
            plain.model,
            plain.prompt_tokens,
            plain.completion_tokens,
            prompt=places,
        )
    )


def _scored(place: Mapping[str, Any]) -> Sequence[tuple[int, float, str]]:
    found = [
        (int(token), min(0.0, float(said["logprob"])), _whole(str(said.get("decoded_token") or "")))
        for token, said in place.items()
    ]
    return sorted((f for f in found if f[1] > _NEVER), key=lambda f: -f[1])


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
