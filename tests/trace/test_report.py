"""The report says what the audit found, to a lay reader first."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from limbeck.ledger.note import new_signer
from limbeck.trace.audit import Item, judge
from limbeck.trace.coins import Pair, usable
from limbeck.trace.likeness import Finding, rate
from limbeck.trace.many import discover
from limbeck.trace.report import Models, figures, path_drawing, render_html, tables
from limbeck.trace.sealing import Beacon, commit, read_sealed, seal

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def report(
    tmp_path: Path, lean: float, *, beacon: Beacon | None = None, count: int = 60
) -> dict[str, Any]:
    signer = new_signer("tests", seed=bytes(32))
    pairs = usable([Pair(f"p{i}", "a", "b") for i in range(count)])
    commit(tmp_path, pairs, signer, teacher={"name": "the mill's model"}, now=NOW, key=bytes(32))
    seal(tmp_path, signer, beacon)
    sealed = read_sealed(tmp_path)
    items = [
        Item(c.pair.hash.hex(), "", c.bit, (0.0, lean * (2 * c.bit - 1)), ()) for c in sealed.coins
    ]
    return figures(
        judge(items, "a <b>suspect</b>", (), alpha=1e-3),
        sealed,
        Models("a <b>suspect</b>", "f00d", {}),
        created=NOW,
        discoveries=discover({"anna": 5e4, "bert": 1.0}, 0.01),
        supporting=[
            Finding(
                "tokenizer",
                "the same",
                "everybody has it",
                "not an identification",
                1.0,
                (rate(1.0, [1.0, 0.5, 0.2], among="strangers"),),
            )
        ],
    )


def page_text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.split("</style>")[1]).split())


def test_the_first_page_tells_a_lay_reader_what_was_found_and_how(tmp_path: Path):
    html = render_html(report(tmp_path, 3.0))
    first = page_text(html).split("Figures")[0]
    assert first.startswith("Trained on these answers")
    for words in (
        "coin toss",
        "guessing gives 50%",
        "What this does not show",
        "on 100.0% of them",
    ):
        assert words in first
    assert "log" not in first.split("What this does not show")[0].lower()


def test_not_shown_never_reads_as_not_distilled(tmp_path: Path):
    made = report(tmp_path, -0.5)
    assert made["verdict"] == "not shown"
    text = page_text(render_html(made))
    assert "It did not show the contrary either" in text
    assert "Not shown is not innocence" in text
    assert "was not trained" not in text


def test_names_cannot_write_markup(tmp_path: Path):
    html = render_html(report(tmp_path, 3.0))
    assert "<b>suspect</b>" not in html
    assert "a &lt;b&gt;suspect&lt;/b&gt;" in html


@pytest.mark.parametrize(
    ("beacon", "said"),
    [(None, "No public beacon"), (Beacon("value"), "time was not stated")],
)
def test_what_an_outsider_cannot_check_is_said(tmp_path: Path, beacon: Beacon | None, said: str):
    assert said in " ".join(report(tmp_path, 1.0, beacon=beacon)["warnings"])


def test_likeness_is_shown_apart_and_changes_no_figure(tmp_path: Path):
    made = report(tmp_path, 0.0)
    assert made["e_value"] == pytest.approx(1)
    assert "no part of the verdict" in render_html(made)


def test_tables_name_accounts_and_supporting_evidence(tmp_path: Path):
    shown = list(tables(report(tmp_path, 3.0)))
    titles = [getattr(part, "title", None) for part in shown]
    assert any("e-BH" in str(t) for t in titles)
    assert any("no part of the verdict" in str(t) for t in titles)


def test_the_path_is_drawn_with_its_threshold():
    drawing = path_drawing([0.1, 2.0, 8.0], 1e-3)
    assert drawing.count("<polyline") == 1
    assert "threshold 1,000" in drawing
    assert len(re.findall(r"[\d.]+,[\d.]+", drawing.split('points="')[1].split('"')[0])) == 4
