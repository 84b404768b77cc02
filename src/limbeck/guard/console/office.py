"""The admin API and the console as one app, to be served on its own or mounted at the root of another."""

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from limbeck.guard.admin.app import PREFIX as ADMIN
from limbeck.guard.admin.app import admin_app
from limbeck.guard.admin.ledger import LedgerView
from limbeck.guard.console.app import PREFIX as CONSOLE
from limbeck.guard.console.app import console_app
from limbeck.guard.state.home import State
from limbeck.guard.state.leases import LeaseStore


def office(state: State, store: LeaseStore, ledger: LedgerView | None = None) -> ASGIApp:
    """Return the app: `/admin/v1/…` is the API, `/console` the console, and `/` leads there.

    Args:
        state: The guard's folder.
        store: The budgets' counters, to show what was spent.
        ledger: The ledger to look at, if there is one.
    """
    admin, console = admin_app(state, store, ledger), console_app(state, store, ledger)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/":
            await RedirectResponse(CONSOLE, 307)(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(ADMIN):
            await admin(scope, receive, send)
        else:
            await console(scope, receive, send)

    return answer
