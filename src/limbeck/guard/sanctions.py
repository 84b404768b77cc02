"""From a decision to a standing: what the evidence asks for, proposed to the accounts."""

from collections.abc import Callable

from limbeck.errors import AccountError
from limbeck.guard.decision import Decision
from limbeck.guard.logs import log
from limbeck.guard.sanction import Proposal
from limbeck.guard.state.home import State
from limbeck.guard.state.rules import sanction_rules
from limbeck.guard.state.standings import propose


def proposing(state: State) -> Callable[[Decision, str], None]:
    """Return a function that proposes a decision's action, in the name of the policy.

    What comes into force of it is up to the rules: nothing in shadow mode, and no block without a signature. It
    raises StateError while the database cannot be reached.
    """

    def propose_to_accounts(decision: Decision, evidence: str) -> None:
        account, _, user = decision.account.partition("/")
        proposal = Proposal(
            account,
            decision.action,
            decision.clause,
            evidence,
            user=user,
            because=decision.because,
            e_value=float(decision.e_value),
        )
        try:
            with state.change("policy") as change:
                propose(change, proposal, sanction_rules(change.connection))
        except AccountError as error:  # an account that was removed meanwhile has no standing
            log("proposal_refused", account=decision.account, why=str(error))

    return propose_to_accounts
