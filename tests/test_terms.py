import tomllib
from dataclasses import dataclass
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.distill.recipe import TermsRecipe
from limbeck.errors import TermsError
from limbeck.terms import KNOWN, TABLE_AS_OF, Terms, check_terms, lookup

TODAY = date(2026, 11, 24)
READ = date(2026, 11, 1)


@dataclass(frozen=True)
class Said:
    licence: str | None = None
    outputs_may_train: bool | None = None
    source: str | None = None
    as_of: date | None = None
    permission: str | None = None


def check(said: Said, model_licence: str | None = None) -> Terms:
    return check_terms(said, model_licence=model_licence, teacher="a-teacher", today=TODAY)


def refused(said: Said, model_licence: str | None = None) -> str:
    with pytest.raises(TermsError) as caught:
        check(said, model_licence)
    return str(caught.value)


def lines_to_write(message: str) -> dict[str, object]:
    """Read what a refusal says to write into the recipe, as the TOML that it must be."""
    return tomllib.loads(message[message.index("[teacher.terms]") :])["teacher"]["terms"]


@pytest.mark.parametrize("name", ["Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0"])
def test_open_licences_let_outputs_train(name: str):
    terms = check(Said(licence=name))
    assert (terms.outputs_may_train, terms.as_of, terms.permission) == ("yes", TABLE_AS_OF, None)
    assert terms.source is not None
    assert terms.basis


def test_the_licence_that_a_packaged_teacher_states_is_enough():
    assert check(Said(), "apache-2.0").licence == "Apache-2.0"


@pytest.mark.parametrize(
    "name", ["llama2", "llama3", "OpenAI", "Anthropic", "gemini-api", "tongyi-qianwen", "grok-2"]
)
def test_forbidding_terms_stop_the_run_and_ask_for_a_permission(name: str):
    message = refused(Said(licence=name))
    known = lookup(name)
    assert known is not None
    assert known.basis in message
    assert known.source in message
    assert set(lines_to_write(message)) == {"licence", "permission"}


@pytest.mark.parametrize("name", ["llama3.1", "llama3.2", "llama3.3", "llama4", "gemma", "qwen"])
def test_conditions_on_the_student_are_part_of_the_basis(name: str):
    assert len(check(Said(licence=name)).basis) > 60


@pytest.mark.parametrize("name", ["MRL", "mnpl", "cc-by-nc-4.0", "qwen-research", "gpl-3.0"])
def test_a_permission_that_hangs_on_the_purpose_is_unknown(name: str):
    message = refused(Said(licence=name))
    assert "Read the terms yourself" in message
    assert lines_to_write(message)["outputs_may_train"] is True


@pytest.mark.parametrize("stated", [None, "other", "unknown", "  "])
def test_a_teacher_without_a_licence_stops_the_run(stated: str | None):
    message = refused(Said(), stated)
    assert "nothing says under which licence a-teacher is" in message
    assert set(lines_to_write(message)) == {"licence", "outputs_may_train", "source", "as_of"}


def test_a_licence_that_nobody_knows_stops_the_run():
    assert "unknown whether Acme-1.0" in refused(Said(licence="Acme-1.0"))


def test_a_recipe_may_vouch_for_an_unknown_licence_with_source_and_date():
    terms = check(Said("Acme-1.0", True, "https://acme.example/terms", READ))
    assert terms == Terms("Acme-1.0", "yes", terms.basis, "https://acme.example/terms", READ)


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        (Said("Acme-1.0", True), "source and as_of"),
        (Said("Acme-1.0", True, as_of=READ), "needs source:"),
        (Said("Acme-1.0", True, "s"), "needs as_of:"),
        (Said("MIT", True), "source and as_of"),
    ],
)
def test_vouching_needs_source_and_date(said: Said, missing: str):
    assert missing in refused(said)


def test_vouching_without_any_licence_asks_for_its_name():
    assert "nothing says under which licence" in refused(Said(None, True, "s", READ))


def test_a_recipe_cannot_contradict_a_forbidding_licence_without_a_permission():
    said = Said("llama2", True, "s", READ)
    assert "does not allow training" in refused(said)
    terms = check(Said("llama2", True, "s", READ, permission="letter of 2026-10-01"))
    assert (terms.outputs_may_train, terms.permission) == ("no", "letter of 2026-10-01")


def test_another_licence_in_the_recipe_does_not_hide_what_the_model_itself_states():
    for said in (Said(licence="MIT"), Said("MIT", True, "s", READ)):
        assert "Llama 2 Community License" in refused(said, "llama2")
    terms = check(Said(licence="MIT", permission="letter 7"), "llama2")
    assert (terms.licence, terms.outputs_may_train) == ("Llama 2 Community License", "no")


def test_a_recipe_that_names_another_licence_than_the_model_must_vouch_for_it():
    message = refused(Said(licence="MIT"), "llama3.1")
    assert "the recipe says MIT, but the files of a-teacher say llama3.1" in message
    assert check(Said("MIT", True, "letter of its authors", READ), "llama3.1").licence == "MIT"
    assert check(Said(licence="apache2"), "Apache-2.0").licence == "Apache-2.0"
    assert "but the files of a-teacher say acme-only" in refused(Said(licence="MIT"), "acme-only")
    assert check(Said("MIT", True, "letter of its authors", READ), "acme-only").licence == "MIT"


def test_a_recipe_may_forbid_what_a_licence_allows():
    assert "the recipe says" in refused(Said("MIT", False))
    assert check(Said("MIT", False, permission="letter 7")).outputs_may_train == "no"


def test_a_permission_is_enough_where_nothing_else_is_known():
    terms = check(Said(permission="letter 7"))
    assert terms.outputs_may_train == "unknown"
    assert (terms.licence, terms.source, terms.as_of) == (None, None, None)


@given(st.integers(1, 10_000))
def test_terms_read_in_the_future_are_an_error(days: int):
    said = Said("Acme-1.0", True, "s", TODAY + timedelta(days))
    assert "lies in the future" in refused(said)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (Said(licence=" "), "licence"),
        (Said("MIT", source=""), "source"),
        (Said("MIT", permission="\t"), "permission"),
    ],
)
def test_a_blank_field_is_no_statement(said: Said, field: str):
    assert f"teacher.terms.{field} of a-teacher is blank" in refused(said)


def test_the_lines_to_write_are_accepted_by_the_recipe_and_by_the_next_check():
    advised = TermsRecipe.model_validate(lines_to_write(refused(Said(licence="Acme-1.0"))))
    terms = check_terms(advised, model_licence=None, teacher="a-teacher", today=TODAY)
    assert terms.outputs_may_train == "yes"
    advised = TermsRecipe.model_validate(lines_to_write(refused(Said(licence="llama2"))))
    assert check_terms(advised, model_licence=None, teacher="t", today=TODAY).permission


def test_a_quote_in_a_licence_name_does_not_break_the_lines_to_write():
    assert lines_to_write(refused(Said(licence='The "best" \\ licence')))["licence"] == (
        'The "best" \\ licence'
    )


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("apache 2.0", "Apache-2.0"),
        ("APACHE-2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("llama3.1", "Llama 3.1 Community License"),
        ("Llama 3.1 community license", "Llama 3.1 Community License"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("GPL-3.0-or-later", "GPL-3.0-only"),
    ],
)
def test_names_are_found_whatever_their_case_and_punctuation(name: str, canonical: str):
    found = lookup(name)
    assert found is not None
    assert found.name == canonical


def test_llama_3_1_is_not_taken_for_llama_3_nor_for_31():
    assert (lookup("llama3"), lookup("llama31")) == (lookup("Llama 3 Community License"), None)
    assert lookup("llama3") != lookup("llama3.1")


def test_no_two_entries_share_a_name():
    names = [alias for entry in KNOWN for alias in (entry.name, *entry.aliases)]
    clashes = [n for n in names if (hit := lookup(n)) is None or n not in (hit.name, *hit.aliases)]
    assert clashes == []


def test_every_entry_says_why_and_where():
    assert len(KNOWN) > 40
    assert all(entry.basis.endswith(".") and entry.source.startswith("https://") for entry in KNOWN)


def test_terms_are_json_values_by_name():
    assert check(Said(), "MIT").as_dict() == {
        "licence": "MIT",
        "outputs_may_train": "yes",
        "basis": check(Said(), "MIT").basis,
        "source": "https://spdx.org/licenses/MIT.html",
        "as_of": TABLE_AS_OF.isoformat(),
        "permission": None,
    }
