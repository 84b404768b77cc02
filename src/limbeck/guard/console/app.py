"""The console as a Starlette app: log in, look, decide."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from limbeck.errors import LimbeckError
from limbeck.guard.admin.app import status_of
from limbeck.guard.admin.ledger import LedgerView
from limbeck.guard.console import pages
from limbeck.guard.console.session import COOKIE, LIFETIME_S, Session, Sessions
from limbeck.guard.state import appeals, blocks, standings, uses
from limbeck.guard.state.admins import Admin, Role, admin, authenticate_admin
from limbeck.guard.state.home import State
from limbeck.guard.state.leases import LeaseStore
from limbeck.guard.state.writing import Writing

PREFIX: Final = "/console"
_STYLE = Path(__file__).with_name("style.css")
_MAX_FIELD = 10_000
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is logged in."""

    admin: Admin
    session: Session


class Console:
    """Answers the console's requests over an open state. Make the app with `console_app`."""

    def __init__(self, state: State, store: LeaseStore, ledger: LedgerView | None) -> None:
        self._state, self._store, self._ledger = state, store, ledger
        self._sessions = Sessions(state.pepper)
        self._templates = pages.environment()

    def routes(self) -> list[Route]:
        """Return every route."""
        shown = {"": self.overview, "/queue": self.queue, "/ledger": self.ledger}
        shown |= {"/accounts/{id}": self.account}
        done = {
            "/logout": self.logout,
            "/accounts/{id}/approve": self._doing(_approve, "/accounts/{id}"),
            "/accounts/{id}/restore": self._doing(_restore, "/accounts/{id}"),
            "/uses/{id}/approve": self._doing(_approve_use, "/queue"),
            "/appeals/{id}/decide": self._doing(_decide, "/queue"),
            "/blocks/{id}/restore": self._doing(_lift, "/queue"),
        }
        return [
            Route(f"{PREFIX}/style.css", self.style, methods=["GET"]),
            Route(f"{PREFIX}/login", self.login_form, methods=["GET"]),
            Route(f"{PREFIX}/login", self.login, methods=["POST"]),
            *(Route(PREFIX + path, answer, methods=["GET"]) for path, answer in shown.items()),
            *(Route(PREFIX + path, answer, methods=["POST"]) for path, answer in done.items()),
        ]

    async def style(self, _: Request) -> Response:
        """Answer with the style sheet."""
        headers = {**_HEADERS, "Cache-Control": "max-age=3600"}
        return Response(_STYLE.read_bytes(), media_type="text/css", headers=headers)

    async def login_form(self, _: Request) -> Response:
        """Show the form that asks for an admin key."""
        return self._page("login.html", None, wrong=False)

    async def login(self, request: Request) -> Response:
        """Begin a session for whoever holds a good admin key."""
        _same_origin(request)
        form = await request.form(max_files=0, max_fields=5)
        found = await run_in_threadpool(self._authenticated, _field(form, "key").strip())
        if found is None:
            return self._page("login.html", None, status=403, wrong=True)
        answer = RedirectResponse(PREFIX, 303, headers=_HEADERS)
        answer.set_cookie(
            COOKIE,
            self._sessions.begin(found.id),
            max_age=LIFETIME_S,
            path=PREFIX,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def logout(self, request: Request) -> Response:
        """End the session in this browser."""
        visit = await self._visit(request)
        await self._genuine(request, visit)
        answer = RedirectResponse(f"{PREFIX}/login", 303, headers=_HEADERS)
        answer.delete_cookie(COOKIE, path=PREFIX, httponly=True, samesite="strict")
        return answer

    async def overview(self, request: Request) -> Response:
        """Show accounts by evidence."""
        visit = await self._visit(request)
        search = request.query_params.get("search", "").strip().lower()[:63]
        return await self._shown("overview.html", visit, lambda c: pages.overview(c, search))

    async def queue(self, request: Request) -> Response:
        """Show what waits for a person."""
        visit = await self._visit(request)
        return await self._shown("queue.html", visit, lambda _: {"now": self._state.clock()})

    async def account(self, request: Request) -> Response:
        """Show one account."""
        visit, id = await self._visit(request), request.path_params["id"]
        now = self._state.clock()
        return await self._shown(
            "account.html",
            visit,
            lambda c: pages.account_page(c, self._store, self._ledger, id, now),
        )

    async def ledger(self, request: Request) -> Response:
        """Show how far the ledger is."""
        visit = await self._visit(request)
        ledger = self._ledger
        return await self._shown(
            "ledger.html", visit, lambda _: {"ledger": None if ledger is None else ledger.state()}
        )

    async def refused(self, request: Request, error: HTTPException) -> Response:
        """Show why a request is not answered; a stranger is shown the way in."""
        if error.status_code == 401:
            return RedirectResponse(f"{PREFIX}/login", 303, headers=_HEADERS)
        return self._page("sorry.html", None, status=error.status_code, sentence=error.detail)

    async def failed(self, request: Request, error: LimbeckError) -> Response:
        """Show a deliberate error's sentence."""
        return self._page("sorry.html", None, status=status_of(error), sentence=str(error))

    def _doing(self, act: "Callable[[Writing, Admin, str, FormData], object]", then: str) -> Answer:
        async def answer(request: Request) -> Response:
            visit, id = await self._visit(request), request.path_params["id"]
            form = await self._genuine(request, visit)
            if not visit.admin.may(Role.SIGN):
                raise HTTPException(403, "Deciding needs an admin key with the role sign.")

            def do() -> None:
                with self._state.change(visit.admin.name) as change:
                    act(change, visit.admin, id, form)

            await run_in_threadpool(do)
            back = then.replace("{id}", id) if _field(form, "back") != "queue" else "/queue"
            return RedirectResponse(PREFIX + back, 303, headers=_HEADERS)

        return answer

    async def _visit(self, request: Request) -> Visit:
        session = self._sessions.read(request.cookies.get(COOKIE, ""))
        found = None
        if session is not None:
            found = await run_in_threadpool(self._admin, session.admin)
        if session is None or found is None:
            raise HTTPException(401)
        return Visit(found, session)

    async def _genuine(self, request: Request, visit: Visit) -> FormData:
        """Return the form, if it was filled in on a page of this session."""
        _same_origin(request)
        form = await request.form(max_files=0, max_fields=10)
        if not self._sessions.genuine(visit.session, _field(form, "token")):
            raise HTTPException(
                403, "This form is not from your session. Go back and reload the page."
            )
        return form

    async def _shown(
        self, template: str, visit: Visit, read: "Callable[[Any], dict[str, Any]]"
    ) -> Response:
        def gather() -> dict[str, Any]:
            with self._state.read() as connection:
                waiting = pages.queue(connection, self._state.clock())
                return {"queue": waiting, **read(connection)}

        return self._page(template, visit, **await run_in_threadpool(gather))

    def _page(
        self, template: str, visit: Visit | None, *, status: int = 200, **shown: Any
    ) -> Response:
        token = "" if visit is None else self._sessions.token(visit.session)
        admin = None if visit is None else visit.admin
        signs = admin is not None and admin.may(Role.SIGN)
        text = self._templates.get_template(template).render(
            admin=admin, token=token, signs=signs, root=PREFIX, **shown
        )
        return HTMLResponse(text, status, headers=_HEADERS)

    def _authenticated(self, key: str) -> Admin | None:
        if not key.isascii():
            return None
        with self._state.read() as connection:
            return authenticate_admin(connection, self._state.pepper, key, self._state.clock())

    def _admin(self, id: str) -> Admin | None:
        with self._state.read() as connection:
            found = admin(connection, id)
        return found if found is not None and found.opens(self._state.clock()) else None


def console_app(state: State, store: LeaseStore, ledger: LedgerView | None = None) -> Starlette:
    """Return the console over an open state.

    Args:
        state: The guard's folder.
        store: The budgets' counters, to show what was spent.
        ledger: The ledger to look at, if there is one.
    """
    console = Console(state, store, ledger)
    handlers: dict[Any, Any] = {HTTPException: console.refused, LimbeckError: console.failed}
    return Starlette(routes=console.routes(), exception_handlers=handlers)


def _approve(change: Writing, who: Admin, id: str, form: FormData) -> None:
    standings.sign_off(change, id, who.name, user=_field(form, "user"))


def _restore(change: Writing, who: Admin, id: str, form: FormData) -> None:
    reason = _field(form, "reason")
    standings.restore(change, id, who.name, user=_field(form, "user"), reason=reason)


def _approve_use(change: Writing, who: Admin, id: str, _: FormData) -> None:
    uses.approve_use(change, id, who.name)


def _decide(change: Writing, who: Admin, id: str, form: FormData) -> None:
    uphold, answer = _field(form, "uphold"), _field(form, "answer")
    if uphold not in {"yes", "no"}:
        raise HTTPException(422, "Say whether the appeal is upheld.")
    appeals.decide_appeal(change, id, uphold=uphold == "yes", by=who.name, answer=answer)


def _lift(change: Writing, who: Admin, id: str, _: FormData) -> None:
    blocks.lift(change, id, who.name)


def _field(form: FormData, name: str) -> str:
    value = form.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_FIELD or "\0" in value:
        raise HTTPException(422, f"The field {name} cannot be read.")
    return value


def _same_origin(request: Request) -> None:
    """Refuse a form that another site sent. Every browser of today names where a form comes from."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}":
        raise HTTPException(403, "This form came from another site.")
