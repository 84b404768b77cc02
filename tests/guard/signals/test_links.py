from limbeck.guard.signals.links import links
from tinytraffic import observation


def test_what_is_unknown_links_nothing() -> None:
    assert links(observation("a", 0.0, "", org="")) == ()


def test_every_link_is_named_by_its_scope_so_that_values_of_two_scopes_never_meet() -> None:
    one = observation("a", 0.0, "", org="x", payment="x", ip="x", attributes={"group": "x"})
    found = links(one)
    assert tuple(scope for scope, _ in found) == ("payment", "org", "ip", "group")
    assert len({name for _, name in found}) == 4


def test_network_client_and_day_of_sign_up_do_not_pool() -> None:
    one = observation(
        "a", 0.0, "", org="", asn="64500", user_agent="curl", attributes={"signup": "2026-01-01"}
    )
    assert links(one) == ()
