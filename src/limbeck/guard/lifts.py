"""What people take back: restorings in the accounts' timeline that the watch has not heard of yet.

They reach the keeper by the database, whoever made them (command line, console, admin API, an upheld appeal) and on
whichever gateway. The number of the last one is part of the watch's snapshot, so that a keeper that starts from an older
snapshot takes them in again.
"""

import sqlalchemy as sa

from limbeck.errors import GuardError
from limbeck.guard.logs import log
from limbeck.guard.state.home import State
from limbeck.guard.state.tables import event
from limbeck.guard.watch import Watch

_RESTORED = "restored"


def newest(state: State) -> int:
    """Return the number of the newest entry of the timeline, 0 where there is none.

    Raises:
        StateError: The database cannot be reached.
    """
    with state.read() as connection:
        return connection.execute(sa.select(sa.func.max(event.c.seq))).scalar_one() or 0


def since(state: State, seq: int) -> list[tuple[int, str]]:
    """Return what was restored after an entry of the timeline: (number, account as the watch names it).

    Raises:
        StateError: The database cannot be reached.
    """
    query = sa.select(event.c.seq, event.c.account, event.c.user).order_by(event.c.seq)
    query = query.where(event.c.seq > seq, event.c.what == _RESTORED)
    with state.read() as connection:
        rows = connection.execute(query).all()
    return [(n, f"{account}/{user}" if user else account) for n, account, user in rows]


def take_in(watch: Watch, lifts: list[tuple[int, str]]) -> None:
    """Lift accusations in the watch; an account that it does not know has none."""
    for seq, account in lifts:
        try:
            watch.lift(account)
            log("lifted", account=account)
        except GuardError:
            log("lifted", account=account, known=False)
        watch.lifted = seq
