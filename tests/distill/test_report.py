"""A report made from real measurements of tiny models: its form, its sentences and its page."""

import json
import re
from collections.abc import Generator
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from limbeck.distill.evaluate import measure_fidelity
from limbeck.distill.plots import divergence_by_bucket, loss_curves, smooth
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.distill.report import (
    CURVE_POINTS,
    Sample,
    Seconds,
    build_report,
    duration,
    environment,
    headline,
    millions,
    render_html,
    size,
    summary_table,
    training_curve,
)
from limbeck.distill.speed import measure_footprint, measure_speed
from limbeck.distill.targets import Document
from limbeck.distill.train import StepLog
from limbeck.figures import number, percent, points, visible
from limbeck.progress import Silent

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"
HOSTILE = (
    '<script>alert("x")</script><img src="http://a.example/x.png" onerror=1> {{ 7 * 7 }} \x07 & end'
)


def tiny(seed: int, layers: int = 1) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def documents(count: int) -> list[Document]:
    rng = np.random.default_rng(3)
    made: list[Document] = []
    for i in range(count):
        loss_T = np.ones(int(rng.integers(10, 100)), np.bool_)
        loss_T[-1] = False
        tokens_T = rng.integers(0, 61, len(loss_T)).astype(np.int32)
        made.append(Document(tokens_T, loss_T, True, f"{i:064x}"))
    return made


def recipe() -> Recipe:
    return parse_recipe(
        {
            "name": "tiny",
            "teacher": {"model": "packaged:tiny"},
            "corpus": {"files": ["a.jsonl"]},
            "student": {"layers": 1},
        }
    )


def log(steps: int) -> list[StepLog]:
    return [StepLog(i + 1, 3 / (i + 1), 1.0, 1e-3, 100 + i, 0.5) for i in range(steps)]


def made(*, controls: bool = True, texts: int = 6, hostile: str = "plain") -> dict[str, Any]:
    teacher, student = tiny(0, 2), tiny(1)
    arms = {"student": student}
    if controls:
        arms |= {"undistilled": tiny(2), "cross_entropy": tiny(3)}
    counts = np.arange(61, dtype=np.int64)
    heldout = measure_fidelity(
        teacher,
        arms,
        documents(texts),
        counts,
        precision="no",
        batch_tokens=512,
        progress=Silent(),
    )
    speed = measure_speed(teacher, student, [[1, 2]], tokens=2, rounds=3, progress=Silent())
    absent = None if not controls else hostile
    curves = {"student": training_curve(log(40))}
    if controls:
        curves["cross_entropy"] = training_curve(log(40))
    return build_report(
        recipe=recipe(),
        created=datetime(2026, 11, 24, 5, 0, tzinfo=UTC),
        terms={
            "licence": "Apache-2.0",
            "outputs_may_train": "yes",
            "basis": hostile,
            "source": "https://spdx.org/licenses/Apache-2.0.html",
            "as_of": None,
            "permission": None,
        },
        corpus={"read": 20, "duplicate": 3, "train": 11, "heldout": 6, "answers_cut": 2},
        footprint={
            "teacher": measure_footprint(teacher, None).as_dict(),
            "student": measure_footprint(student, None).as_dict(),
        },
        speed=speed.as_dict(),
        heldout=heldout.as_dict(),
        captured=900,
        trained=2700,
        store={"bytes_per_token": 9.5, "positions": 900},
        seconds=Seconds(1, 2, 3, 7),
        curves=curves,
        samples=[Sample(hostile, hostile, hostile, absent, absent)],
        notes=["Half of the positions were left out, which changes the objective."],
        hashes={"store": "ab" * 32},
        environment=environment(device="cpu", threads=1),
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Generator[None]:
    """Tiny models gain nothing from threads, and wait for them on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def report(one_thread: None) -> dict[str, Any]:
    return made(hostile=HOSTILE)


def complaints(report: dict[str, Any]) -> list[str]:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    as_written = json.loads(json.dumps(report, allow_nan=False))
    return [e.message for e in Draft202012Validator(schema).iter_errors(as_written)]


def test_a_report_of_real_measurements_has_the_form_that_docs_promise(
    report: dict[str, Any],
) -> None:
    assert complaints(report) == []


def test_a_report_without_controls_leaves_them_out_and_keeps_the_form() -> None:
    bare = made(controls=False)
    assert complaints(bare) == []
    assert not {"undistilled", "cross_entropy"} & set(bare["heldout"])
    assert bare["verdicts"] == {}
    assert sum("was not made" in sentence for sentence in bare["headline"]) == 2
    assert "Cross-entropy control" not in render_html(bare)


def test_a_report_of_one_document_has_no_intervals_and_no_verdict() -> None:
    single = made(texts=1)
    assert complaints(single) == []
    assert {v["verdict"] for v in single["verdicts"].values()} == {"undecided"}
    assert not re.search(r"\bnan\b", render_html(single))


@pytest.mark.parametrize(
    "path",
    [
        "parameters.teacher",
        "parameters.student",
        "speed_ratio.median",
        "speed_ratio.low",
        "speed_ratio.high",
        "heldout.teacher.perplexity",
        *(
            f"heldout.{arm}.{figure}"
            for arm in ("student", "undistilled", "cross_entropy")
            for figure in ("kl_mean", "top1_agreement", "perplexity")
        ),
        "tokens.captured",
        "tokens.trained",
        "store.bytes_per_token",
        "seconds.capture",
        "seconds.train",
        "seconds.evaluate",
        "seconds.total",
    ],
)
def test_every_figure_of_the_contract_is_a_number_that_the_schema_holds(
    report: dict[str, Any], path: str
) -> None:
    broken = json.loads(json.dumps(report))
    *above, last = path.split(".")
    section = broken
    for name in above:
        section = section[name]
    assert isinstance(section[last], int | float)
    section[last] = "much"
    assert complaints(broken)
    del section[last]
    assert complaints(broken)


@pytest.mark.parametrize("where", ["", "heldout", "heldout.student", "tokens", "seconds", "loss"])
def test_an_unknown_key_breaks_the_form(report: dict[str, Any], where: str) -> None:
    broken = json.loads(json.dumps(report))
    section = broken
    for name in where.split(".") if where else ():
        section = section[name]
    section["klmean"] = 1
    assert any("klmean" in complaint for complaint in complaints(broken))


@pytest.mark.parametrize(
    ("low", "high", "verdict", "words"),
    [
        (-0.07, -0.03, "better", "Nearer to the teacher than the control"),
        (0.03, 0.07, "worse", "Farther from the teacher than the control"),
        (-0.01, 0.07, "undecided", "Not told apart from the control"),
    ],
)
def test_the_interval_of_the_difference_decides_the_verdict(
    low: float, high: float, verdict: str, words: str
) -> None:
    changed = with_difference([low, high])
    assert changed["verdicts"]["cross_entropy"]["verdict"] == verdict
    assert sum(sentence.startswith(words) for sentence in headline(changed)) == 1


def with_difference(interval: list[float]) -> dict[str, Any]:
    """Return a report whose difference to the control is planted."""
    arm = {
        "kl_mean": 0.4,
        "kl_interval": [0.3, 0.5],
        "kl_tails": {"p50": 0.1, "p90": 1, "p99": 2, "max": 3},
        "top1_agreement": 0.631,
        "top1_interval": [0.61, 0.652],
        "perplexity": 3,
        "perplexity_interval": [2, 4],
        "kl_by_position": [],
        "kl_by_frequency": [],
    }
    difference = {
        "kl_mean": sum(interval) / 2,
        "kl_interval": interval,
        "top1_agreement": 0.01,
        "top1_interval": [0, 0.02],
        "confidence": 0.975,
    }
    footprint = {
        "parameters": 50_000_000,
        "weight_bytes": 1,
        "cache_bytes_per_token": 1,
        "disk_bytes": 1,
    }
    spread = {"median": 2.3, "low": 2.1, "high": 2.4}
    return build_report(
        recipe=recipe(),
        created=datetime(2026, 11, 24, tzinfo=UTC),
        terms={},
        corpus={},
        footprint={"teacher": footprint | {"parameters": 100_000_000}, "student": footprint},
        speed={"ratio": spread},
        heldout={
            "documents": 9,
            "positions": 1234,
            "confidence": 0.95,
            "teacher": {"perplexity": 2.5, "perplexity_interval": None},
            "student": arm,
            "cross_entropy": arm,
            "differences": {"cross_entropy": difference},
        },
        captured=1,
        trained=1,
        store={"bytes_per_token": 1.0},
        seconds=Seconds(1, 1, 1, 3),
        curves={},
        samples=[],
        notes=[],
        hashes={},
        environment={},
    )


def test_the_first_sentence_carries_agreement_size_and_speed_with_their_intervals() -> None:
    sentence = with_difference([-0.1, -0.05])["headline"][0]
    for figure in ("63.1% [61.0, 65.2]", "50% of its parameters", "2.30 times", "[2.10, 2.40]"):
        assert figure in sentence


def test_a_change_of_the_objective_stands_in_the_headline(report: dict[str, Any]) -> None:
    assert report["loss"]["notes"][0] in report["headline"]


class Page(HTMLParser):
    """Collects tags, identifiers and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "srcset", "xlink:href", "data", "action", "poster"}:
                self.addresses.append(value or "")
            assert not name.startswith("on"), f"{tag} has a handler {name}"


def test_arbitrary_text_of_models_stays_text(report: dict[str, Any]) -> None:
    html = render_html(report)
    page = Page(html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert html.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;") == 6
    assert "{{ 7 * 7 }}" in html
    assert "\x07" not in html
    assert "␇" in html


def test_the_page_loads_nothing(report: dict[str, Any]) -> None:
    html = render_html(report)
    page = Page(html)
    assert page.addresses
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", html)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "default-src 'none'" in html


def test_identifiers_are_unique_and_every_reference_meets_one(report: dict[str, Any]) -> None:
    html = render_html(report)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    wanted = {a.removeprefix("#") for a in page.addresses} | set(
        re.findall(r"url\(#([^)]+)\)", html)
    )
    assert wanted <= set(page.ids)


def test_every_drawing_has_a_name_and_follows_the_colours_of_the_page(
    report: dict[str, Any],
) -> None:
    html = render_html(report)
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 3
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title id=[^>]+>[^<]{10,}</title>", drawing)
        assert "var(--student)" in drawing
        assert "var(--cross-entropy)" in drawing
        assert not re.search(r"#0103\d\d", drawing)
    assert "prefers-color-scheme: dark" in html


def test_equal_figures_give_equal_pages(report: dict[str, Any]) -> None:
    assert render_html(report) == render_html(json.loads(json.dumps(report)))


def test_the_page_shows_what_was_dropped_and_how_to_repeat_it(report: dict[str, Any]) -> None:
    html = render_html(report)
    assert re.search(r"Dropped: duplicates</th><td>3</td>", html)
    assert re.search(r"Answers cut</th><td>2</td>", html)
    assert report["hashes"]["recipe"] in html


def test_the_page_can_be_written_whatever_a_model_says() -> None:
    text = "".join(map(chr, [0, 8, 0x7F, 0x85, 0xD800, 0x202E, 0x1F600])) + "a\tb\n"
    assert visible(text).encode()
    assert visible("a\tb\n") == "a\tb\n"
    assert visible("\x00\x7f\ud800") == "␀␡\ufffd"


def test_the_table_fits_a_terminal_of_80_columns(report: dict[str, Any]) -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(summary_table(report))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    for label in ("Teacher", "Student", "Cross-entropy control", "Undistilled start"):
        assert sum(line.strip().startswith(label) for line in lines) == 1
    assert any("9.5 bytes/token" in line for line in lines)


def test_long_curves_are_thinned_without_losing_their_mean() -> None:
    long = log(1000)
    curve = training_curve(long)
    assert len(curve) <= CURVE_POINTS
    assert curve[-1]["step"] == 1000
    weights = [sum(s.positions for s in long[i : i + 4]) for i in range(0, 1000, 4)]
    mean = sum(s.loss * s.positions for s in long) / sum(s.positions for s in long)
    losses = [p["loss"] for p in curve]
    assert np.average(losses, weights=weights) == pytest.approx(mean)
    assert training_curve([]) == []
    assert len(training_curve(log(7))) == 7


def test_smoothing_keeps_straight_lines() -> None:
    line = [0.5 * i for i in range(120)]
    assert smooth(line) == pytest.approx(line)
    assert np.std(np.diff(smooth([float(i % 2) for i in range(120)])[4:-4])) < 0.15


def test_drawings_stand_zero_divergence_and_single_points() -> None:
    buckets = [{"bucket": "0", "positions": 3, "kl_mean": -1e-9, "kl_interval": [-1e-8, 1e-8]}]
    svg = divergence_by_bucket({"student": buckets}, label="x", prefix="a", title="<b>")
    assert '<title id="a-title">&lt;b&gt;</title>' in svg
    assert "nan" not in svg
    assert "nan" not in loss_curves({"student": [{"step": 1, "loss": 2.0}]}, prefix="b", title="c")


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (number(0.4123, [0.3981, 0.4264]), "0.412 [0.398, 0.426]"),
        (number(-0.05181, [-0.06, 0.001], sign=True), "−0.0518 [−0.0600, +0.0010]"),
        (number(48211.3), "48,211"),
        (number(6.412), "6.41"),
        (number(0), "0.0000"),
        (percent(0.6312, [0.61, 0.6525]), "63.1% [61.0, 65.2]"),
        (points(-0.021), "−2.1 points"),
        (millions(67_200_000), "67.2M"),
        (millions(1_240_000_000), "1.24B"),
        (millions(812_000), "812k"),
        (millions(12), "12"),
        (size(269_100_000), "269.1 MB"),
        (size(12), "12 B"),
        (size(None), "–"),
        (duration(48.2), "48.2 s"),
        (duration(365), "6 min 05 s"),
        (duration(3725), "1 h 02 min"),
        (duration(59.96), "1 min 00 s"),
    ],
)
def test_figures_are_written_with_the_digits_they_deserve(written: str, wanted: str) -> None:
    assert written == wanted
