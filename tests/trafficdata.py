"""A folder in the layout of the public sets that traffic is composed of, small and made up."""

import gzip
import json
from pathlib import Path

_FAMILIES = {
    "chat": ("sharegpt", "instructionwild", "awesome_prompts"),
    "benchmark": ("mmlu", "boolq", "arc-easy", "arc-challenge", "winogrande", "gsm8k", "mathqa", "piqa", "social", "openbookqa"),
    "copying": ("alpaca", "flan_cot", "codealpaca", "self_instruct", "glaive_toolcall_en_demo"),
}  # fmt: skip
_BIGBENCH = (
    "semantic_parsing_spider",
    "misconceptions",
    "moral_permissibility",
    "simple_ethical_questions",
    "tense",
)
_PLACES = ("harbour", "quarry", "bakery", "orchard", "station", "archive", "garden", "foundry")
_THINGS = (
    "copper kettle",
    "spare wheel",
    "letter of credit",
    "beehive",
    "tide table",
    "glass lens",
    "loom",
    "ledger",
)


def say(family: str, n: int) -> str:
    """Return the n-th text of a family, which no other family has."""
    place, thing = _PLACES[n % 8], _THINGS[n // 8 % 8]
    return f"{family} item {n}: what does the {place} keeper want with the {thing} number {n * 7 % 53}?"


def make(folder: Path, each: int = 80) -> Path:
    """Write the files and return the folder."""
    rows = [
        {"class": kind, "family": family, "source": family, "text": say(family, n)}
        | ({"session": f"s{n // 4}", "turn": n % 4} if family == "sharegpt" else {})
        for kind, families in _FAMILIES.items()
        for family in families
        for n in range(each)
    ]
    rows += [
        {
            "class": "benchmark",
            "family": "bigbench",
            "source": f"bigbench/{task}",
            "text": say(f"bigbench {task}", n),
        }
        for task in _BIGBENCH
        for n in range(each)
    ]
    _write(folder / "traffic" / "prompts.jsonl.gz", "".join(json.dumps(row) + "\n" for row in rows))
    for stem in ("snips.train", "atis.train", "trec.train", "sentence_polarity", "subjectivity"):
        lines = [json.dumps({"text": say(stem, n)}) + "\n" for n in range(each)]
        _write(folder / "tasks" / f"{stem}.jsonl.gz", "".join(lines))
    for stem, column in (("banking77.train", "text"), ("e2e.dev", "mr")):
        rows_of = "".join(f'"{say(stem, n)}"\n' for n in range(each))
        _write(folder / "tasks" / f"{stem}.csv.gz", f"{column}\n{rows_of}")
    clinc = {"train": [[say("clinc", n), "label"] for n in range(each)]}
    _write(folder / "tasks" / "clinc150.json.gz", json.dumps(clinc))
    for stem in (
        "wiki_sentences",
        "wikitext2.valid",
        "inaugural",
        "state_union",
        "tinyshakespeare",
    ):
        _write(
            folder / "text" / f"{stem}.txt.gz",
            "".join(say(stem, n) + "\n" for n in range(each * 4)),
        )
    pages = [
        json.dumps({"text": " ".join(say("c4", 8 * n + k) for k in range(8))}) + "\n"
        for n in range(each)
    ]
    _write(folder / "text" / "c4.jsonl.gz", "".join(pages))
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(text)
