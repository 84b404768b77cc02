from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from guardoffice import Office
from limbeck.guard.console.office import office as make
from limbeck.guard.state.admins import Role


def test_the_api_and_the_console_answer_beside_another_apps_routes(office: Office) -> None:
    async def metrics(_: Request) -> PlainTextResponse:
        return PlainTextResponse("up 1")

    inner = make(office.state, office.store, office.ledger)
    app = Starlette(routes=[Route("/metrics", metrics), Mount("/", inner)])
    client = TestClient(app)
    assert client.get("/metrics").text == "up 1"
    assert client.get("/").url.path == "/console/login"
    assert client.get("/console/style.css").headers["content-type"].startswith("text/css")
    answer = client.get("/admin/v1/accounts", headers=office.bearer(Role.READ))
    assert [account["id"] for account in answer.json()] == ["acme"]
    assert client.get("/admin/v1/accounts").status_code == 401
    login = {"key": office.keys[Role.READ]}
    assert client.post("/console/login", data=login).url.path == "/console"
    assert client.get("/elsewhere").status_code == 404
