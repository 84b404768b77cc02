import json
from pathlib import Path

import pytest

from limbeck.ledger.container import read_container
from limbeck.trace.report import render_html
from limbeck.trace.restate import restated
from limbeck.trace.verify import verify_trace
from smalltrace import PLAN, Case

PROSE = {
    "because": "the suspect confessed",
    "limits": [],
    "propositions": ["they did it", "they did it"],
    "strength": "overwhelming proof",
    "supporting": [{"name": "gossip", "value": "much", "means": "guilt", "error_rate": "none"}],
    "warnings": ["trust us"],
}


@pytest.mark.parametrize(
    ("gain", "headline"), [(6.0, "Trained on these answers"), (0.0, "Not shown")]
)
def test_a_maker_s_prose_does_not_reach_the_page(
    tmp_path: Path, gain: float, headline: str
) -> None:
    case = Case(tmp_path)
    case.commit()
    case.register(PLAN)
    case.seal()
    path = case.audit(gain)
    honest = json.loads(path.read_text())
    path.write_text(json.dumps(honest | PROSE))
    out = case.export(path)
    shown = verify_trace(out)
    report = json.loads(read_container(out)["run-1.json"])
    again = restated(report, shown.runs[0], shown.registration)
    page = render_html(again)
    assert headline in page
    for words in ("confessed", "they did it", "overwhelming proof", "gossip", "trust us"):
        assert words not in page
    assert {k: again[k] for k in PROSE} == {k: honest[k] for k in PROSE}
