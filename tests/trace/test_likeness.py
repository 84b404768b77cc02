"""Every likeness is labelled with a count of models that are as alike, and its exact interval."""

import pytest

from limbeck.stats.proportion import clopper_pearson
from limbeck.trace.likeness import (
    REFERENCES,
    Counted,
    Finding,
    Population,
    counted,
    measured,
    rate,
    read_counted,
    shown_rate,
)

COUNTED = Counted(
    "a command",
    "some models",
    (
        Population("strangers", False, {"CKA": [0.1, 0.2, 0.3, 0.9]}),
        Population("students", True, {"CKA": [0.9, 0.9]}),
    ),
)


def finding(likeness: float | None) -> Finding:
    return Finding("CKA", "0.8", "an ancestor", "not known", likeness)


def test_a_rate_counts_who_is_at_least_as_alike_with_an_exact_interval():
    found = rate(0.3, [0.1, 0.2, 0.3, 0.9], among="strangers")
    exact = clopper_pearson(2, 4)
    assert (found.alike, found.of, found.low, found.high) == (2, 4, exact.low, exact.high)
    assert shown_rate(found) == "2 of 4 (7 to 93%)"


def test_findings_are_labelled_by_references_and_by_the_benchmark():
    (found,) = measured([finding(0.8)], [[finding(0.85)], [finding(None)], [finding(0.1)]], COUNTED)
    assert [(r.among, r.learned, r.alike, r.of) for r in found.measured] == [
        (REFERENCES, False, 1, 2),
        ("strangers", False, 1, 4),
        ("students", True, 2, 2),
    ]


def test_what_was_not_compared_has_no_rate():
    assert measured([finding(None)], [[finding(0.1)]], COUNTED)[0].measured == ()


def test_the_rates_that_come_with_limbeck_cover_every_finding_and_name_their_command():
    found = counted()
    assert found.command.startswith("python benchmarks/trace.py")
    innocent = [p for p in found.populations if not p.learned]
    assert len(innocent) == 3
    names = {
        "tokenizer", "architecture", "weights, cosine", "weights, order of hidden units",
        "activations, CKA", "text, overlap of word pairs",
    }  # fmt: skip
    for population in found.populations:
        assert set(population.likeness) == names
    strangers = next(p for p in innocent if "never trained" in p.name)
    assert all(len(values) >= 20 for values in strangers.likeness.values())


def test_rates_of_another_format_are_refused():
    with pytest.raises(ValueError, match="have the format"):
        read_counted({"format": "other"})
