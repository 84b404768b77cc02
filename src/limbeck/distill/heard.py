"""Turn what an API said into documents with targets: text alone, likeliest tokens, or scores of given text."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from limbeck.artefact import sha256_bytes
from limbeck.chat import Choice, Completion
from limbeck.distill.corpus import Prompt, Tokenizer, answered
from limbeck.distill.spelling import Spelling
from limbeck.distill.store import StoreSpec, sparsify_known
from limbeck.distill.targets import Document, SparseTargets, Taught
from limbeck.errors import TeacherError, TokenizerMismatchError

_LEVELS = 4096
"""Masses are multiples of 1 / 4096: a stated probability is worth keeping finer than an estimate."""
_EXCESS = 0.02
"""How far probabilities of one place may sum above 1 before they are no probabilities."""

_BROKEN = re.compile("\ufffd+")

Ids = Sequence[int]
Named = Sequence[tuple[int, float]]
"""Ids with their probabilities, by falling probability; empty where nothing is known."""


@dataclass
class Counts:
    """What happened on the way from answers to documents; grows."""

    cut_answers: int = 0
    """Answers that ended at their length, at the API's limit or at `corpus.max_length`."""
    unknown_ends: int = 0
    """Ends of turns for which the API gave no distribution: they are learned as realised tokens."""
    foreign_tokens: int = 0
    """Likely tokens that the student's vocabulary lacks: their mass stays in the tail."""

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return {
            "cut_answers": self.cut_answers,
            "unknown_ends": self.unknown_ends,
            "foreign_tokens": self.foreign_tokens,
        }


@dataclass(frozen=True)
class Hearing:
    """How a student reads what an API says."""

    tokenizer: Tokenizer
    """The student's."""
    spec: StoreSpec
    end: int | None
    """Token that ends an answer's turn; None where the tokenizer has none."""
    max_length: int
    """Tokens of prompt and answer at the most."""
    seed: int
    spelling: Spelling | None = None
    """What the student's tokens spell; needed for answers with probabilities."""
    counts: Counts = field(default_factory=Counts)


def known_spec(entries: int | None, *, shard_documents: int) -> StoreSpec:
    """Return what a store keeps of an API's words: every stated token, the rest as mass.

    Args:
        entries: Likeliest tokens asked for; the realised one may come on top. None for text alone.
        shard_documents: Documents a shard.
    """
    return StoreSpec(
        max_head=(entries or 0) + 1,
        tail_samples=1,
        tail_weight=None,
        tail_floor=0.0,
        levels=_LEVELS,
        shard_documents=shard_documents,
    )


def end_of_turn(tokenizer: Any) -> int | None:
    """Return the special token with which the chat template ends an answer, else the tokenizer's end token."""
    asked = [{"role": "user", "content": "a"}]
    turn = [*asked, {"role": "assistant", "content": "b"}]
    before = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    through = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=False)
    if through.startswith(before):
        after = tokenizer(through[len(before) :], add_special_tokens=False)["input_ids"]
        added = tokenizer.added_tokens_decoder
        special = [i for i in after if i in added and added[i].special]
        if special:
            return int(special[0])
    return tokenizer.eos_token_id


def hear_text(prompt: Prompt, completion: Completion, hearing: Hearing) -> Taught:
    """Return an answer of which only the text is known, in the student's tokens.

    The answer is tokenised by itself, for the student too will write it after the prompt's tokens.
    """
    ended = completion.finish == "stop"
    text = completion.text if ended else completion.text.rstrip("\ufffd")  # cut within a character
    ids = list(hearing.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    document = _document(prompt, [*ids, *_end(ended, hearing)], ended, hearing)
    nothing: list[Named] = [()] * document.positions
    return Taught(document, _targets(document, nothing, hearing))


def hear_choices(prompt: Prompt, completion: Completion, hearing: Hearing) -> Taught:
    """Return an answer with the likeliest tokens at every place, which must be tokens of the student too.

    Raises:
        TokenizerMismatchError: A token that was written is none of the student's, or the tokens are not the text.
        TeacherError: What is stated are no probabilities.
    """
    spelling = hearing.spelling
    if spelling is None or completion.choices is None:
        raise TeacherError("an answer without probabilities was taken for one with them")
    choices = list(completion.choices)
    ended = completion.finish == "stop"
    _check_bytes(choices, completion)
    ids = [_own_id(choice, spelling) for choice in choices]
    named = [_named(choice, number, hearing) for choice, number in zip(choices, ids, strict=True)]
    if ended and not (ids and ids[-1] in spelling.literals):
        end = _end(ended, hearing)
        ids += end
        named += [()] * len(end)
        hearing.counts.unknown_ends += len(end)
    document = _document(prompt, ids, ended, hearing)
    return Taught(document, _targets(document, named[: document.positions], hearing))


def hear_scores(document: Document, completion: Completion, hearing: Hearing) -> Taught:
    """Return a document with the scores that a server gave to its tokens.

    Raises:
        TokenizerMismatchError: The server's ids stand for other text than the student's.
        TeacherError: A place lacks the token that stands there, or what is stated are no probabilities.
    """
    if hearing.spelling is None or completion.prompt is None:
        raise TeacherError("a reply without scores was taken for one with them")
    named: list[Named] = []
    for place in np.flatnonzero(document.loss_T):
        scores = completion.prompt[place]
        realised = int(document.tokens_T[place + 1])
        if realised not in {number for number, _, _ in scores}:
            raise TeacherError(
                f"the scores of document {document.key[:12]} lack token {place + 1}, id {realised}; "
                "is that the server's own id for it?"
            )
        for number, _, text in scores:
            _check_same_text(number, text, hearing.spelling)
        named.append(_probabilities({n: math.exp(p) for n, p, _ in scores}, realised, hearing.spec))
    return Taught(document, _targets(document, named, hearing))


def _end(ended: bool, hearing: Hearing) -> list[int]:
    return [hearing.end] if ended and hearing.end is not None else []


def _document(prompt: Prompt, ids: list[int], ended: bool, hearing: Hearing) -> Document:
    """Join prompt and answer; an answer that does not fit is cut, and then does not end."""
    room = hearing.max_length - len(prompt.tokens_T)
    hearing.counts.cut_answers += not ended or len(ids) > room
    return answered(prompt, ids[:room])


def _check_bytes(choices: Sequence[Choice], completion: Completion) -> None:
    """Check that an answer's tokens are its text, but for a special token at the end."""
    text = _legible(completion.text)
    everything = b"".join(c.token for c in choices)
    without_end = b"".join(c.token for c in choices[:-1])
    spelt = (everything, without_end) if completion.finish == "stop" else (everything,)
    if text in {_legible(data.decode(errors="replace")) for data in spelt}:
        return
    raise TokenizerMismatchError(
        f"the tokens of an answer of model {completion.model} do not spell its text: {_start(everything)} against "
        f"{text[:40]!r}; learn from text alone, without top_logprobs"
    )


def _legible(text: str) -> str:
    """Return a text with broken characters shown alike: decoders differ in how many signs one takes."""
    return _BROKEN.sub("\ufffd", text).rstrip("\ufffd")


def _start(data: bytes) -> str:
    return repr(data[:40].decode(errors="replace"))


def _own_id(choice: Choice, spelling: Spelling) -> int:
    number = spelling.id_of.get(choice.token)
    if number is None:
        raise TokenizerMismatchError(
            f"the API wrote the token {_start(choice.token)}, which the student's vocabulary lacks: its tokens and the "
            "student's do not correspond one to one; take a student with the teacher's tokenizer, or learn from text "
            "alone, without top_logprobs"
        )
    return number


def _named(choice: Choice, realised: int, hearing: Hearing) -> Named:
    if hearing.spelling is None:
        return ()
    stated: dict[int, float] = {}
    for token, logprob in choice.top:
        number = hearing.spelling.id_of.get(token)
        if number is None:
            hearing.counts.foreign_tokens += 1
        else:
            stated[number] = stated.get(number, 0.0) + math.exp(logprob)
    if choice.logprob is not None:
        stated.setdefault(realised, math.exp(choice.logprob))
    return _probabilities(stated, realised, hearing.spec)


def _probabilities(stated: Mapping[int, float], realised: int, spec: StoreSpec) -> Named:
    """Return the likeliest stated tokens, the realised one among them, by falling probability."""
    total = sum(stated.values())
    if not total <= 1 + _EXCESS:
        raise TeacherError(
            f"stated probabilities sum to {total:.3f} at one place, which is above 1; does the server give natural "
            "logarithms of probabilities?"
        )
    order = sorted(stated.items(), key=lambda entry: (-entry[1], entry[0]))
    kept = order[: spec.max_head]
    if realised in stated and realised not in {n for n, _ in kept}:
        kept[-1] = (realised, stated[realised])
    scale = 1 / max(1.0, total)
    return [(number, p * scale) for number, p in kept]


def _check_same_text(number: int, text: str, spelling: Spelling) -> None:
    ours = spelling.bytes_of(number)
    if ours is not None and (number in spelling.literals or "\ufffd" in text or not text):
        return  # parts of characters and special tokens have no text of their own
    if ours is None or ours.decode(errors="replace").strip() != text.strip():
        raise TokenizerMismatchError(
            f"token {number} is {text!r} at the server and {None if ours is None else _start(ours)} for the student: "
            "their tokenizers differ"
        )


def _targets(document: Document, named: Sequence[Named], hearing: Hearing) -> SparseTargets:
    heads_N = np.array([len(place) for place in named], dtype=np.int64)
    entries = [entry for place in named for entry in place]
    content = sha256_bytes(document.tokens_T.tobytes())
    seed = (hearing.seed * 0x9E3779B97F4A7C15 + int(content[:15], 16)) % 2**63
    return sparsify_known(
        heads_N,
        np.array([number for number, _ in entries], dtype=np.int64),
        np.array([p for _, p in entries], dtype=np.float64),
        document.tokens_T[1:][document.loss_T[:-1]].astype(np.int64),
        hearing.spec,
        torch.Generator().manual_seed(seed),
    )
