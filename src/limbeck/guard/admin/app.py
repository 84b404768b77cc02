"""The admin API as a Starlette app: who asks, is it well formed, do it, and say what came of it."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from limbeck.errors import AccountError, LedgerError, LimbeckError, NoSuchError, StateError
from limbeck.guard.admin.ledger import LedgerView
from limbeck.guard.admin.openapi import document
from limbeck.guard.admin.operations import OPERATIONS, Asked, Operation, run
from limbeck.guard.plain import plain
from limbeck.guard.state.admins import Admin, authenticate_admin
from limbeck.guard.state.home import State
from limbeck.guard.state.leases import LeaseStore

PREFIX: Final = "/admin/v1"
_MAX_BODY = 64 * 1024
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def admin_app(state: State, store: LeaseStore, ledger: LedgerView | None = None) -> Starlette:
    """Return the admin API over an open state.

    Args:
        state: The guard's folder.
        store: The budgets' counters, to show what was spent.
        ledger: The ledger to look at, if there is one.
    """
    described = document(OPERATIONS, PREFIX)

    async def openapi(_: Request) -> Response:
        return JSONResponse(described)

    routes = [Route(f"{PREFIX}/openapi.json", openapi, methods=["GET"])]
    routes += [
        Route(
            PREFIX + operation.path,
            _endpoint(operation, state, store, ledger),
            methods=[operation.method],
        )
        for operation in OPERATIONS
    ]
    handlers: dict[Any, Any] = {HTTPException: _refused, LimbeckError: _failed}
    return Starlette(routes=routes, exception_handlers=handlers)


def _endpoint(
    operation: Operation, state: State, store: LeaseStore, ledger: LedgerView | None
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        admin = await run_in_threadpool(_who, state, request)
        if not admin.may(operation.role):
            need = (
                f"this needs the role {operation.role.value}, and this key has {admin.role.value}"
            )
            raise HTTPException(403, need)
        query = _parsed_query(operation, request)
        body = None if operation.body is None else _parsed_body(operation, await _body(request))
        asked = Asked(state, store, ledger, admin, _id(request), query, body)
        result = await run_in_threadpool(run, operation, asked)
        return JSONResponse(plain(result), operation.status, headers=_HEADERS)

    return endpoint


def _who(state: State, request: Request) -> Admin:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    found = None
    if scheme.lower() == "bearer" and text.isascii():
        with state.read() as connection:
            found = authenticate_admin(connection, state.pepper, text.strip(), state.clock())
    if found is None:
        raise HTTPException(401, "send a good admin key as Authorization: Bearer la-…")
    return found


def _id(request: Request) -> str:
    id = request.path_params.get("id", "")
    if "id" in request.path_params and not _ID.fullmatch(id):
        raise HTTPException(404, "there is nothing of that id")
    return id


def _parsed_query(operation: Operation, request: Request) -> Any:
    items = request.query_params.multi_items()
    if len({name for name, _ in items}) < len(items):
        raise HTTPException(422, "a parameter of the query is given twice")
    try:
        return operation.query.model_validate(dict(items))
    except ValidationError as error:
        raise HTTPException(422, _sentence(error, operation.query)) from error


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "send the body as Content-Type: application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f"a body has at most {_MAX_BODY} bytes")
    return bytes(body)


def _parsed_body(operation: Operation, body: bytes) -> Any:
    assert operation.body is not None  # noqa: S101
    try:
        return operation.body.model_validate_json(body)
    except ValidationError as error:
        status = 400 if error.errors()[0]["type"] == "json_invalid" else 422
        raise HTTPException(status, _sentence(error, operation.body)) from error


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    if first["type"] == "extra_forbidden":
        return (
            f"there is no field {where}; the fields are {', '.join(model.model_fields) or 'none'}"
        )
    return f"{where}: {first['msg']}"


async def _refused(_: Request, error: HTTPException) -> Response:
    headers = {**_HEADERS, **(error.headers or {})}
    if error.status_code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error.detail}, error.status_code, headers=headers)


async def _failed(_: Request, error: LimbeckError) -> Response:
    return JSONResponse({"error": str(error)}, status_of(error), headers=_HEADERS)


def status_of(error: LimbeckError) -> int:
    """Return the HTTP status that says what a deliberate error means."""
    match error:
        case NoSuchError():
            return 404
        case AccountError():
            return 409
        case StateError() | LedgerError():
            return 503
        case _:
            return 500
