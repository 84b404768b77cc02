"""Sift a run's answers: the filter's checks, the user's verifier and a judge, over what the store holds."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.artefact import read_json
from limbeck.backends.answers import Answers
from limbeck.backends.ask import Ask, chat_ask
from limbeck.backends.openai import model_name
from limbeck.chat import Message
from limbeck.distill.corpus import Prompt
from limbeck.distill.filter import (
    Candidate,
    Sifted,
    checks_of,
    choose,
    decide,
    score_decision,
    tally,
)
from limbeck.distill.judging import question, read_score
from limbeck.distill.recipe import FilterRecipe, JudgeRecipe
from limbeck.distill.targets import Document
from limbeck.errors import FilterError, StoreError
from limbeck.progress import Progress
from limbeck.remote import ask_everything
from limbeck.verifier import NamedVerifier


def candidates(
    documents: Iterable[Document], prompts: Sequence[Prompt], tokenizer: Any, ends: frozenset[int]
) -> list[Candidate]:
    """Return a store's answers with what they answer, in the store's order.

    Args:
        documents: Answers as the store holds them.
        prompts: What was asked.
        tokenizer: The student's.
        ends: Tokens that end a turn.

    Raises:
        StoreError: An answer to a prompt that was not asked.
    """
    numbers = {p.tokens_T.astype(np.int32).tobytes(): n for n, p in enumerate(prompts)}
    found: list[Candidate] = []
    for document in documents:
        start = int(np.flatnonzero(document.loss_T)[0]) + 1
        number = numbers.get(document.tokens_T[:start].astype(np.int32).tobytes())
        if number is None:
            raise StoreError(
                f"the store holds an answer, {document.key[:12]}, to no prompt of the corpus"
            )
        finished = int(document.tokens_T[-1]) in ends
        tokens_T = document.tokens_T[start : len(document.tokens_T) - finished]
        text = tokenizer.decode(
            tokens_T.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        prompt = prompts[number]
        found.append(
            Candidate(
                turns=prompt.turns,
                answer=text,
                reference=prompt.reference,
                finished=finished,
                tokens_T=tokens_T,
                heldout=document.heldout,
                prompt=number,
            )
        )
    return found


def sift(
    recipe: FilterRecipe,
    found: Sequence[Candidate],
    *,
    schema: Any | None,
    verifier: NamedVerifier | None,
    judgements: Path,
    seed: int,
    progress: Progress,
) -> tuple[Sifted, Mapping[str, Any] | None]:
    """Decide on every answer, and return the decisions' sum and what the judge took.

    Args:
        recipe: The `[filter]` section.
        found: All answers.
        schema: The JSON value of its schema file, where it names one.
        verifier: A function of the user's.
        judgements: File of the judge's replies; grows.
        seed: Seeds the jitter of waits.
        progress: Hears of every judgement.

    Raises:
        FilterError: Nothing is left on one side of the split, or the verifier fails.
        TeacherError: The judge cannot be asked.
    """
    checks = checks_of(recipe, schema, None if verifier is None else verifier.call)
    decisions = [decide(candidate, checks) for candidate in found]
    scores: dict[int, float] = {}
    usage = None
    if recipe.judge is not None:
        judged = [n for n, d in enumerate(decisions) if d.kept]
        usage, scores = _judge(
            recipe.judge, found, judged, judgements, seed=seed, progress=progress
        )
        for number in judged:
            decisions[number] = score_decision(scores.get(number), recipe.judge.min_score)
    return tally(found, choose(found, decisions, scores, recipe)), usage


def _judge(
    recipe: JudgeRecipe,
    found: Sequence[Candidate],
    judged: Sequence[int],
    path: Path,
    *,
    seed: int,
    progress: Progress,
) -> tuple[Mapping[str, Any], dict[int, float]]:
    asks = {n: _question(recipe, found[n], seed) for n in judged}
    progress.begin("judge", len(asks), "answers")
    usage = ask_everything(
        list(asks.values()), recipe.model, recipe.api, path, seed=seed, progress=progress
    )
    with Answers(path) as answers:
        replies = {n: answers.get(ask.sha256) for n, ask in asks.items()}
    read = {n: read_score(reply.text, recipe) for n, reply in replies.items() if reply is not None}
    return usage, {n: score for n, score in read.items() if score is not None}


def _question(recipe: JudgeRecipe, candidate: Candidate, seed: int) -> Ask:
    return chat_ask(
        model_name(recipe.model) or recipe.model,
        (Message("user", question(recipe, candidate)),),
        max_tokens=recipe.max_new_tokens,
        temperature=0.0,
        seed=seed if recipe.api.send_seed else None,
        length_key=recipe.api.length_key,
        extra=recipe.api.extra,
    )


def sifted_json(
    sifted: Sifted | None, documents: int, judge: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a filter did as JSON values; without a filter everything is kept."""
    if sifted is None:
        return {"documents": documents, "kept": None}
    return {
        "documents": documents,
        "kept": list(sifted.kept),
        "counts": {
            "answers": dict(sifted.answers),
            "kept": dict(sifted.kept_by_side),
            "rejected": dict(sifted.rejected),
        },
        "judge": None if judge is None else dict(judge),
    }


def read_schema(path: Path) -> Any:
    """Read a JSON Schema.

    Raises:
        FilterError: The file is missing or not JSON.
    """
    try:
        return read_json(path)
    except OSError as error:
        raise FilterError(f"filter.json_schema {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise FilterError(f"filter.json_schema {path} is not JSON: {error}") from None
