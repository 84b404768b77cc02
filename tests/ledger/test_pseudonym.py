from hypothesis import given
from hypothesis import strategies as st

from limbeck.ledger.pseudonym import (
    THE_LOG,
    commitment,
    keyed_digest,
    new_salt,
    opening,
    pseudonym,
)

SECRETS = st.binary(min_size=32, max_size=32)


@given(SECRETS, SECRETS, st.text(), st.text())
def test_a_pseudonym_opens_to_its_account_and_its_key_only(
    one: bytes, two: bytes, anna: str, bert: str
) -> None:
    name = pseudonym(anna, opening(one, anna))
    assert len(name) == len(THE_LOG)
    assert (pseudonym(bert, opening(one, bert)) == name) == (anna == bert)
    assert (pseudonym(anna, opening(two, anna)) == name) == (one == two)
    if anna != bert:  # one account's opening opens no other account
        assert pseudonym(bert, opening(one, anna)) != pseudonym(bert, opening(one, bert))


@given(SECRETS, st.text(), st.text())
def test_a_digest_is_equal_for_equal_texts_only(secret: bytes, one: str, two: str) -> None:
    assert (keyed_digest(secret, one) == keyed_digest(secret, two)) == (one == two)


def test_a_digest_says_nothing_to_whoever_lacks_the_secret() -> None:
    assert keyed_digest(bytes(32), "hello") != keyed_digest(b"1" * 32, "hello")


def test_equal_texts_have_different_commitments() -> None:
    assert commitment(new_salt(), "hello") != commitment(new_salt(), "hello")
