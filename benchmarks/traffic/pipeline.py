"""Enterprise pipelines: one template of an account's own around item after item, day and night."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.guard.observation import Observation
from traffic import clock, reply
from traffic.account import Account, Exchange, observe, pick, rounds, system, user
from traffic.material import Material, words_of

_FIRMS = (
    "Northwind Travel", "Halden Bank", "Orrery Media", "Pelham Retail", "Quay Insurance", "Tamarack Health", "Bluefin",
    "Sable Logistics", "Verdant Foods", "Kite Mobility", "Marlow Press", "Osprey Energy", "Linden Legal", "Fathom AI",
)  # fmt: skip
_ROLES = ("You are a precise {job} component of {firm}.", "You work for {firm}. Your job: {job}.",
          "{firm} {job} service, version {version}.", "Act as the {job} step in {firm}'s workflow.")  # fmt: skip
_RULES = (
    "Answer in JSON only.", "Do not explain.", "If unsure, answer UNKNOWN.", "Never add keys.", "Keep the input's spelling.",
    "Output one line.", "Follow the schema strictly.", "No markdown.", "Use lower case.", "Be brief.",
)  # fmt: skip
_LANGUAGES = ("German", "French", "Spanish", "Dutch", "Polish", "Japanese", "Portuguese", "Italian")
_SHELLS = (
    "Input: {item}\nOutput:",
    'Text:\n"""{item}"""',
    "{item}",
    "<item>{item}</item>",
    "### Data\n{item}\n### Result",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of pipeline: what it is told, what it reads, how it answers."""

    task: str
    """Items of `Material.items`."""
    job: str
    orders: tuple[str, ...]
    """Wordings of the order; an account has one of them for good."""
    labels: tuple[str, ...] = ()
    """Replies are one of these; without them, prose."""
    passages: int = 0
    """Retrieved passages around the item (RAG)."""


KINDS = {
    "extract-snips": Kind("snips", "slot extraction", ("Extract the intent and its slots: {fields}.",
        "Return the fields {fields} of the request."), ("PlayMusic", "BookRestaurant", "GetWeather", "RateBook")),
    "classify-clinc": Kind("clinc150", "intent routing", ("Classify the message into one of: {fields}.",
        "Which queue should this go to: {fields}?"), ("transfer", "balance", "travel", "oos", "translate")),
    "classify-polarity": Kind("polarity", "sentiment", ("Label the review as positive or negative.",
        "Sentiment of this sentence? pos/neg"), ("positive", "negative")),
    "write-e2e": Kind("e2e", "copywriting", ("Write one sentence that says all of this data, mentioning {fields}.",
        "Turn the attributes into a friendly description. House style: {fields}.")),
    "translate-wiki": Kind("wiki", "translation", ("Translate the text into {language}. Glossary: {fields}.",
        "{language} translation, please; keep names. Terms: {fields}.")),
    "grade-c4": Kind("c4", "content scoring", ("Score the page from 1 to 10 for {fields}, with one reason for each.",
        "Rate this text against the rubric: {fields}. Think step by step, then give a score."),
        ("7", "3", "8", "5", "9", "2")),
    "extract-atis": Kind("atis", "form filling", ("List the values of {fields}.",
        "Fill the booking form from this request; fields: {fields}."), ("flight", "airfare", "ground_service")),
    "classify-banking": Kind("banking77", "ticket triage", ("Assign one of the topics {fields} to the ticket.",
        "Route the customer's message. Topics: {fields}."), ("card_arrival", "top_up", "exchange_rate", "refund")),
    "classify-subjectivity": Kind("subjectivity", "moderation", ("Is this subjective or objective?",
        "Flag sentences that voice an opinion."), ("subjective", "objective")),
    "classify-trec": Kind("trec", "question typing", ("What type of answer does the question want: {fields}?",
        "Type the question."), ("NUM", "LOC", "HUM", "DESC", "ENTY", "ABBR")),
    "rag-wikitext": Kind("wikitext", "document search", ("Answer from the context only. Cite as [n]. Topics: {fields}.",
        "Use the passages to answer. If they do not say, say so. Audience: {fields}."), passages=3),
    "summarise-union": Kind("state_union", "summaries", ("Summarise in two sentences for {fields}.",
        "TL;DR with key figures; focus on {fields}.")),
}  # fmt: skip


def template_of(kind: Kind, rng: np.random.Generator) -> tuple[str, str]:
    """Draw an account's own system prompt and its own shell around an item."""
    firm = pick(rng, _FIRMS)
    fields = ", ".join(sorted({pick(rng, _FIELDS) for _ in range(int(rng.integers(3, 9)))}))
    order = pick(rng, kind.orders).format(fields=fields, language=pick(rng, _LANGUAGES))
    role = pick(rng, _ROLES).format(job=kind.job, firm=firm, version=int(rng.integers(1, 40)))
    rules = [pick(rng, _RULES) for _ in range(int(rng.integers(1, 4)))]
    return " ".join([role, order, *dict.fromkeys(rules)]), pick(rng, _SHELLS)


_FIELDS = (
    "date", "place", "name", "amount", "currency", "product", "reason", "priority", "channel", "language", "genre",
    "artist", "seats", "airline", "branch", "tone", "clarity", "accuracy", "brand fit", "region", "managers", "investors",
    "complaint", "refund", "delivery", "account", "other", "urgent", "spam", "weather", "music", "hotel", "price range",
)  # fmt: skip


def _options(kind: Kind, rng: np.random.Generator) -> dict[str, object]:
    options: dict[str, object] = {"temperature": 0}
    options["max_tokens"] = (
        int(pick(rng, (8, 16, 64))) if kind.labels else int(pick(rng, (256, 512)))
    )
    if kind.labels and rng.random() < 0.25:
        options |= {"logprobs": True, "top_logprobs": 5}
    if kind.labels and rng.random() < 0.1:
        options["logit_bias"] = {str(int(t)): 5 for t in rng.integers(100, 49000, len(kind.labels))}
    return options


def pipeline(account: Account, material: Material) -> Iterator[Observation]:
    """Yield the requests of one pipeline, in a steady flow."""
    rng = np.random.default_rng(account.seed)
    kind = KINDS[account.family.partition("/")[2]]
    told, shell = template_of(kind, rng)
    options = _options(kind, rng)
    items = rounds(rng, material.items(kind.task))
    when = clock.steady(rng, account.start, account.days, account.requests)
    for ts, item in zip(when, items, strict=False):
        text = shell.format(item=_inside(kind, rng, item, material))
        yield observe(
            account,
            float(ts),
            Exchange(
                [system(told), user(text)],
                _reply(kind, rng, text, material.items(account.prose)),
                options,
            ),
        )


def _inside(kind: Kind, rng: np.random.Generator, item: str, material: Material) -> str:
    if not kind.passages:
        return item
    found = [item, *(pick(rng, material.items(kind.task)) for _ in range(kind.passages - 1))]
    topic = " ".join(list(words_of(item))[:3])
    context = "\n".join(f"[{n}] {passage}" for n, passage in enumerate(found, 1))
    return f"Context:\n{context}\n\nQuestion: what is said about {topic}?"


def _reply(kind: Kind, rng: np.random.Generator, text: str, passages: Sequence[str]) -> str:
    if kind.labels:
        return reply.label(rng, kind.labels)
    return reply.prose(rng, text, passages)
