"""Log-likelihoods of given text at a server that states prompt log-probabilities: `openai:NAME@URL`.

Two dialects are spoken, in this order: vLLM's `prompt_logprobs` of a chat that already holds the answer, so that the
server's own template is used; and `echo` with `logprobs` of the older completions endpoint, where prompt and answer are
joined by a newline. Either way the likelihood of the whole text is returned: what two texts begin with alike cancels in
their difference.
"""

from collections.abc import Sequence
from typing import Any

from limbeck.backends.served import ServedModel, asking
from limbeck.errors import ScoringError

_TRIES = 3
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class PromptLogprobs:
    """Asks a server how likely texts are; remembers which dialect it speaks."""

    def __init__(self, spec: str) -> None:
        """Read the spec; nothing is sent yet.

        Raises:
            ScoringError: It has not the form `openai:NAME@URL`.
        """
        served = ServedModel(spec)
        self.name = served.name
        self.base_url = spec.rpartition("@")[2].rstrip("/")
        self._dialects = [self._chat, self._echo]

    @property
    def identity(self) -> str:
        """What it is, as far as one can know from outside."""
        return f"{self.name} at {self.base_url}"

    def weigh(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        """Return the log-likelihood, in nats, of each prompt with its answer.

        Raises:
            ScoringError: The server cannot be reached, refuses, or states no log-probabilities of a prompt.
        """
        with asking() as (client, pool):
            first = [self._settle(client, *texts[0])] if texts else []
            rest = [pool.submit(self._settle, client, *text) for text in texts[1:]]
            return [*first, *(ask.result() for ask in rest)]

    def _settle(self, client: Any, prompt: str, answer: str) -> float:
        """Ask in the first dialect that the server understands, and stay with it."""
        for dialect in list(self._dialects):
            found = dialect(client, prompt, answer)
            if found is not None:
                self._dialects = [dialect]
                return found
        raise ScoringError(
            f"{self.identity} states no log-probabilities of a prompt (neither prompt_logprobs nor echo): what remains "
            "is the audit of its text alone, limbeck trace audit --text-only"
        )

    def _chat(self, client: Any, prompt: str, answer: str) -> float | None:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        body = {
            "messages": turns,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
            "add_generation_prompt": False,
        }
        places = self._ask(client, "chat/completions", body).get("prompt_logprobs")
        if not places:
            return None
        # With 0 further tokens asked for, each place states the token that stands there.
        return _total([next(iter(p.values()))["logprob"] for p in places if p], self.identity)

    def _echo(self, client: Any, prompt: str, answer: str) -> float | None:
        text = f"{prompt}\n{answer}"
        body: dict[str, Any] = {
            "prompt": text,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 0,
        }
        reply = self._ask(client, "completions", body)
        choice = (reply.get("choices") or [{}])[0]
        logprobs = choice.get("logprobs") or {}
        tokens, offsets = logprobs.get("token_logprobs"), logprobs.get("text_offset")
        if not tokens or not offsets or not str(choice.get("text", "")).startswith(text):
            return None
        kept = [p for p, at in zip(tokens, offsets, strict=True) if at < len(text)]
        return _total([p for p in kept if p is not None], self.identity)

    def _ask(self, client: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the reply; an empty one where the server does not know the dialect."""
        import httpx2

        why = ""
        for _ in range(_TRIES):
            try:
                reply = client.post(f"{self.base_url}/{path}", json={"model": self.name, **body})
            except httpx2.HTTPError as error:
                why = f"cannot be reached: {type(error).__name__}"
                continue
            if reply.status_code == 200:
                return _object(reply, self.identity)
            if reply.status_code in {400, 404, 405, 422, 501}:
                return {}
            why = f"answers HTTP {reply.status_code}: {' '.join(reply.text.split())[:80]!r}"
            if reply.status_code not in _PASSING:
                break
        raise ScoringError(f"{self.identity} {why}")


def _object(reply: Any, who: str) -> dict[str, Any]:
    try:
        value = reply.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ScoringError(f"{who} answers with no JSON object: {reply.text[:80]!r}")
    return value


def _total(logprobs: Sequence[Any], who: str) -> float:
    if not logprobs or not all(isinstance(p, float | int) for p in logprobs):
        raise ScoringError(f"{who} states log-probabilities that are no numbers")
    return float(sum(logprobs))
