"""The watch over all accounts: one observation in, one decision out; the gateway and replay call this same code."""

from pathlib import Path

from limbeck.guard.decision import Action, Decision
from limbeck.guard.observation import Observation
from limbeck.guard.policy import DEFAULT, Policy, load_policy


class Watch:
    """What is remembered of all accounts, in bounded memory."""

    def __init__(self, policy: Policy, *, secret: bytes) -> None:
        """Start with no account known.

        Args:
            policy: What is done about which evidence.
            secret: Keys every hash, so that nobody outside can make two prompts collide.
        """
        self._policy = policy
        self._secret = secret

    @classmethod
    def open(cls, policy: Path = DEFAULT, *, secret: bytes) -> "Watch":
        """Read a policy and the artefacts that it names.

        Raises:
            GuardError: One of them is missing or not what the policy says.
        """
        return cls(load_policy(policy), secret=secret)

    def observe(self, observation: Observation) -> Decision:
        """Take in one request and say what to do about its account from now on."""
        return Decision(observation.ts, observation.account, Action.ALLOW)
