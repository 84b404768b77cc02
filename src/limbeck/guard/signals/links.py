"""What links accounts: payment, customer, address, and the sign-up batch of one network and client.

Honest accounts are linked too: the people of an office share an address, a reseller's users a payment, a company's
pipelines a customer and a template, and half the world a browser. So a link pools evidence; it is none. Network and client without a sign-up batch
link nothing: a copier behind a common cloud would drag its honest neighbours along.
"""

from limbeck.guard.observation import Observation

SCOPES = ("payment", "org", "ip", "batch")
"""From the strongest to the weakest."""


def links(observation: Observation) -> tuple[tuple[str, str], ...]:
    """Return (scope, name) of every group that an account belongs to; what is unknown links nothing."""
    found: list[tuple[str, str]] = []
    if observation.payment:
        found.append(("payment", f"payment:{observation.payment}"))
    if observation.org:
        found.append(("org", f"org:{observation.org}"))
    if observation.ip:
        found.append(("ip", f"ip:{observation.ip}"))
    if batch := observation.attributes.get("signup"):
        found.append(("batch", f"batch:{observation.asn}|{observation.user_agent}|{batch}"))
    return tuple(found)
