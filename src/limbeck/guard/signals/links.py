"""What links accounts so that their evidence is pooled: payment, customer, address, a group that the operator names.

Honest accounts are linked too: the people of an office share an address, a reseller's users a payment, a company's
pipelines a customer and a template, and half the world a browser. So a link pools evidence; it is none.

Network, client and day of sign-up do not pool, not even all three together: they join strangers by chance, and a pool of
strangers of two honest classes beats each class by itself. Put into the calibration, such pools raised the limit against
agents from 3 to 33 spreads. An operator who knows more names a `group`.
"""

from limbeck.guard.observation import Observation


def links(observation: Observation) -> tuple[tuple[str, str], ...]:
    """Return (scope, name) of every group that an account belongs to; what is unknown links nothing."""
    found: list[tuple[str, str]] = []
    if observation.payment:
        found.append(("payment", f"payment:{observation.payment}"))
    if observation.org:
        found.append(("org", f"org:{observation.org}"))
    if observation.ip:
        found.append(("ip", f"ip:{observation.ip}"))
    if group := observation.attributes.get("group"):
        found.append(("group", f"group:{group}"))
    return tuple(found)
