"""A teacher behind an API, as a distillation needs it: asked in text, heard in the student's tokens."""

import asyncio
import hashlib
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from limbeck.backends.answers import Answers
from limbeck.backends.ask import Ask, chat_ask, score_ask
from limbeck.backends.asking import Asker, Limits, usage_of
from limbeck.backends.budget import units
from limbeck.backends.openai import Connection, Endpoint, host_of, model_name
from limbeck.distill.corpus import Prompt
from limbeck.distill.evaluate import Knowledge
from limbeck.distill.heard import (
    Counts,
    Hearing,
    end_of_turn,
    hear_choices,
    hear_scores,
    hear_text,
    known_spec,
)
from limbeck.distill.recipe import ApiRecipe, GenerateRecipe, Recipe
from limbeck.distill.spelling import Spelling, spelling_of
from limbeck.distill.store import StoreSpec, StoreWriter
from limbeck.distill.store.manifest import MANIFEST
from limbeck.distill.targets import Document, Taught
from limbeck.errors import TeacherError
from limbeck.model import LocalModel, RemoteModel
from limbeck.progress import Progress

T = TypeVar("T")

ANSWERS = "answers/teacher.jsonl"
JUDGEMENTS = "answers/judge.jsonl"


@dataclass
class Drops:
    """Answers of which no document was made, and those that say nothing new; grows."""

    empty_answers: int = 0
    """The model wrote nothing."""
    beyond_context: int = 0
    """The prompt does not fit into the model's context."""
    equal_answers: int = 0
    """Equal to an earlier answer to the same prompt. They stay; many of them say that the server does not sample."""

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


@dataclass(frozen=True)
class Heard:
    """What became of a set of answers; filled while `documents` is read."""

    hearing: Hearing
    drops: Drops = field(default_factory=Drops)

    @property
    def counts(self) -> Counts:
        """What happened to those that became documents."""
        return self.hearing.counts

    def as_dict(self) -> dict[str, int]:
        """Return all counts by name."""
        return {**self.counts.as_dict(), **self.drops.as_dict()}


def remote_model(recipe: Recipe) -> RemoteModel | None:
    """Return what is known of a recipe's teacher where it is behind an API, else None."""
    if recipe.teacher.api is None:
        return None
    endpoint = endpoint_of(recipe.teacher.model, recipe.teacher.api)
    return RemoteModel(name=recipe.teacher.model, source=host_of(endpoint))


def endpoint_of(model: str, api: ApiRecipe) -> Endpoint:
    """Return where a recipe's model is reached."""
    return Endpoint(
        base_url=api.base_url,
        model=model_name(model) or model,
        key_variable=api.key_variable,
        served_as=api.served_as,
        timeout_s=api.limits.timeout_s,
    )


def limits_of(api: ApiRecipe) -> Limits:
    """Return how a recipe lets an API be asked."""
    values = api.limits.model_dump()
    values.pop("timeout_s")
    return Limits(**values)


def knowledge_of(api: ApiRecipe) -> Knowledge:
    """Return what an API tells of its model."""
    entries = api.top_logprobs or api.prompt_logprobs
    return "text" if entries is None else "likely_tokens"


def store_spec(recipe: Recipe, api: ApiRecipe) -> StoreSpec:
    """Return what a store keeps of an API's words."""
    entries = api.top_logprobs or api.prompt_logprobs
    return known_spec(entries, shard_documents=recipe.capture.shard_documents)


def answer_asks(
    prompts: Sequence[Prompt], recipe: Recipe, api: ApiRecipe, generate: GenerateRecipe
) -> list[tuple[Prompt, Ask]]:
    """Return the requests of a run that lets the teacher write: `generate.samples` to each prompt.

    Each sample is a request of its own, with a seed of its own, so that each is kept and paid once.
    """
    model = model_name(recipe.teacher.model) or recipe.teacher.model
    return [
        (
            prompt,
            chat_ask(
                model,
                prompt.turns,
                max_tokens=generate.max_new_tokens,
                temperature=generate.temperature,
                sample=sample,
                seed=_seed_of(recipe.seed, prompt.key, sample) if api.send_seed else None,
                top_logprobs=api.top_logprobs,
                length_key=api.length_key,
                extra=api.extra,
            ),
        )
        for prompt in prompts
        for sample in range(generate.samples)
    ]


def _seed_of(seed: int, key: str, sample: int) -> int:
    """Return 31 bits that differ between prompts and samples."""
    digest = hashlib.sha256(f"{seed} {key} {sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def score_asks(
    documents: Sequence[Document], recipe: Recipe, api: ApiRecipe
) -> list[tuple[Document, Ask]]:
    """Return the requests of a run in which the teacher scores given text."""
    model = model_name(recipe.teacher.model) or recipe.teacher.model
    entries = api.prompt_logprobs or 1
    return [
        (d, score_ask(model, d.tokens_T.tolist(), prompt_logprobs=entries, extra=api.extra))
        for d in documents
    ]


def hearing_of(recipe: Recipe, api: ApiRecipe, reader: LocalModel) -> Hearing:
    """Return how the student reads what the API says.

    Raises:
        TokenizerMismatchError: Probabilities are asked for, and the student's tokens have no bytes.
    """
    text = knowledge_of(api) == "text"
    return Hearing(
        tokenizer=reader.tokenizer,
        spec=store_spec(recipe, api),
        end=None if recipe.generate is None else end_of_turn(reader.tokenizer),
        max_length=recipe.corpus.max_length,
        seed=recipe.seed,
        spelling=None if text else _spelling_of(reader),
    )


def _spelling_of(reader: LocalModel) -> Spelling:
    return spelling_of(
        reader.tokenizer,
        reader.model.get_output_embeddings().weight.shape[0],
        name=reader.name,
        advice="learn from text alone, without top_logprobs",
    )


def documents(
    asked: Sequence[tuple[Prompt, Ask]] | Sequence[tuple[Document, Ask]],
    answers: Answers,
    heard: Heard,
) -> Iterator[Taught]:
    """Yield a document with targets for every answer that has text, counting the others.

    Raises:
        TokenizerMismatchError: The API's tokens are not the student's.
        TeacherError: An answer makes no sense.
    """
    written: set[tuple[str, str]] = set()
    for what, ask in asked:
        completion = answers.get(ask.sha256)
        if completion is None:
            raise TeacherError(f"the answers lack request {ask.sha256[:12]}; run again to ask it")
        if completion.finish == "beyond_context":
            heard.drops.beyond_context += 1
        elif isinstance(what, Document):
            yield hear_scores(what, completion, heard.hearing)
        elif not completion.text:
            heard.drops.empty_answers += 1
        else:
            mark = (ask.prompt_sha256, completion.text)
            heard.drops.equal_answers += mark in written
            written.add(mark)
            known = completion.choices is not None and heard.hearing.spelling is not None
            yield (hear_choices if known else hear_text)(what, completion, heard.hearing)


def write_store(
    asked: Sequence[tuple[Prompt, Ask]] | Sequence[tuple[Document, Ask]],
    path: Path,
    folder: Path,
    recipe: Recipe,
    api: ApiRecipe,
    *,
    reader: LocalModel,
) -> Heard:
    """Write what an API said into a store, and return what became of its answers.

    Args:
        asked: What was asked, in the order of the store.
        path: The file of answers.
        folder: The store's; one that is finished is only counted again, one that is not is gone on with.
        recipe: The run's.
        api: Its API.
        reader: The model whose tokenizer the student has.

    Raises:
        TeacherError: No answer is left on one side of the split, or one makes no sense.
        TokenizerMismatchError: The API's tokens are not the student's.
    """
    heard = Heard(hearing_of(recipe, api, reader))
    with Answers(path) as answers:
        sides = {t.document.heldout for t in documents(asked, answers, heard)}
    if len(sides) < 2:
        side = "to train on" if False not in sides else "held out"
        raise TeacherError(
            f"of {len(asked)} answers of {recipe.teacher.model} none is left {side}: {heard.drops.empty_answers} were "
            f"empty, in {heard.drops.beyond_context} the prompt did not fit into the model's context"
        )
    if (folder / MANIFEST).is_file():
        return heard
    with Answers(path) as answers, _writer(folder, recipe, api, reader) as writer:
        again = documents(asked, answers, Heard(hearing_of(recipe, api, reader)))
        for number, taught in enumerate(again):
            if number >= writer.documents:
                writer.append(taught)
    return heard


def _writer(folder: Path, recipe: Recipe, api: ApiRecipe, reader: LocalModel) -> StoreWriter:
    endpoint = endpoint_of(recipe.teacher.model, api)
    return StoreWriter(
        folder,
        store_spec(recipe, api),
        vocabulary=reader.model.get_output_embeddings().weight.shape[0],
        tokenizer_sha256=reader.tokenizer_sha256,
        teacher={
            "name": recipe.teacher.model,
            "host": host_of(endpoint),
            "weights_sha256": None,
            "knowledge": knowledge_of(api),
        },
    )


def ends_of(reader: LocalModel) -> frozenset[int]:
    """Return the token with which a student ends the answers that an API gave, where there is one."""
    end = end_of_turn(reader.tokenizer) if reader.tokenizer.chat_template else None
    return frozenset() if end is None else frozenset({end})


def ask_everything(
    asks: Sequence[Ask], model: str, api: ApiRecipe, path: Path, *, seed: int, progress: Progress
) -> Mapping[str, Any]:
    """Send every request that has no answer in a file yet, and return what all of them took.

    Args:
        asks: Equal ones are sent once.
        model: The recipe's name of the model.
        api: Where it is, and how it may be asked.
        path: The file of answers; grows.
        seed: Seeds the jitter of waits.
        progress: Hears of every answer; those that lay there count at once.

    Raises:
        RefusedError: The server says no to us.
        BudgetError: The next request could cost more than is allowed.
        TeacherError: The server cannot be reached or understood.
    """
    limits = limits_of(api)
    every = len(asks)
    asks = list({ask.sha256: ask for ask in asks}.values())
    with Answers(path) as answers:
        before = usage_of(asks, answers, limits.prices)
        progress.advance(every - len(asks) + before.requests)
        if before.requests < len(asks):
            run_async(_ask(asks, model, api, limits, answers, before.cost, seed, progress))
        usage = usage_of(asks, answers, limits.prices)
        names = sorted({c.model for c in map(answers.get, (a.sha256 for a in asks)) if c})
    priced = api.limits.prompt_price is not None or api.limits.completion_price is not None
    return {
        "requests": usage.requests,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "uncounted_requests": usage.uncounted,
        "cost": units(usage.cost) if priced else None,
        "models": names,
    }


async def _ask(
    asks: Sequence[Ask],
    model: str,
    api: ApiRecipe,
    limits: Limits,
    answers: Answers,
    spent: int,
    seed: int,
    progress: Progress,
) -> None:
    async with Connection(endpoint_of(model, api)) as connection:
        asker = Asker(connection, answers, limits, spent=spent, seed=seed)
        await asker.ask_all(asks, progress.advance)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread of its own where this one already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    result: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - handed on to the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]
