"""The admin API: each operation as its caller sees it, who may, and a fuzzer over all of them."""

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from guardoffice import Office
from guardstate import T0
from limbeck.guard.admin.app import PREFIX, admin_app
from limbeck.guard.admin.operations import OPERATIONS, Operation
from limbeck.guard.state.admins import Role
from limbeck.guard.state.timeline import timeline

CHECKS: Any = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


class Api:
    """Calls in the name of one role."""

    def __init__(self, office: Office, role: Role = Role.SIGN) -> None:
        app = admin_app(office.state, office.store, office.ledger)
        self.client = TestClient(app, headers=office.bearer(role))

    def get(self, path: str, status: int = 200) -> Any:
        answer = self.client.get(PREFIX + path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, path: str, body: object, status: int = 200, method: str = "POST") -> Any:
        answer = self.client.request(method, PREFIX + path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def api(office: Office) -> Api:
    return Api(office)


def test_from_an_organisation_to_a_key(api: Api) -> None:
    org = {"id": "lab", "name": "Lab", "domains": ["lab.example"], "payment": ["4242 4242"]}
    assert "4242 4242" not in str(api.post("/orgs", org, 201))
    budget = {"measure": "tokens", "window": "day", "limit": 100}
    assert api.post("/plans/lab", {"budgets": [budget]}, method="PUT")["budgets"] == [budget]
    made = api.post("/accounts", {"org": "lab", "plan": "lab", "id": "lab-1"}, 201)
    assert made["created"] == "2026-09-21T14:13:20Z"
    key = api.post("/accounts/lab-1/keys", {"label": "ci"}, 201)
    assert key["secret"].startswith("lk-" + key["key"]["id"])
    new = api.post(f"/keys/{key['key']['id']}/rotate", {"overlap_seconds": 60}, 201)
    assert new["key"]["replaces"] == key["key"]["id"]
    assert api.post(f"/keys/{new['key']['id']}/revoke", {})["revoked"] is not None
    listed = api.get("/keys?account=lab-1")
    assert {k["id"] for k in listed} == {key["key"]["id"], new["key"]["id"]}
    assert "digest" not in str(listed)
    assert api.get("/accounts/lab-1")["plan"]["id"] == "lab"
    assert api.post("/accounts/lab-1/close", {})["closed"] is not None


def test_sanctions_are_signed_and_lifted_in_the_name_of_the_keys_owner(
    office: Office, api: Api
) -> None:
    api.post("/rules", {"mode": "enforce", "appeal_hours": 24}, method="PATCH")
    proposal = {"action": "block", "clause": "c", "evidence": "e1", "e_value": 400.0}
    assert api.post("/accounts/acme/proposals", proposal)["action"] == "hold"
    assert [s["account"] for s in api.get("/standings?waiting=true")] == ["acme"]
    signed = api.post("/accounts/acme/standing/approve", {})
    assert (signed["action"], signed["signed_off_by"]) == ("block", "Ada Lovelace")
    appeal = api.post("/accounts/acme/appeals", {"text": "We benchmark."}, 201)
    assert [a["id"] for a in api.get("/appeals?open=true")] == [appeal["id"]]
    assert (
        api.post(f"/appeals/{appeal['id']}/decide", {"uphold": True})["decided_by"]
        == "Ada Lovelace"
    )
    assert api.get("/accounts/acme/standing")["action"] == "allow"
    assert api.post("/accounts/acme/standing/restore", {"reason": "twice"})["action"] == "allow"
    entry = api.post("/blocks", {"kind": "org", "value": "org-acme"}, 201)
    assert api.post(f"/blocks/{entry['id']}/restore", {})["by"] == "Ada Lovelace"
    use = api.post("/accounts/acme/uses", {"kind": "evaluation", "expires": T0 + 60}, 201)
    assert api.post(f"/uses/{use['id']}/approve", {})["approved_by"] == "Ada Lovelace"
    assert api.post(f"/uses/{use['id']}/revoke", {})["withdrawn"] is not None
    with office.state.read() as connection:
        by = {event.by for event in timeline(connection) if event.what != "admin key created"}
    assert by == {"test", "Ada Lovelace"}
    assert api.get("/ledger") == {
        "size": 1,
        "accounts": 1,
        "checkpoint": "example.org/log\n7\nroot\n",
        "signed": 1_790_000_000.0,
    }


def test_admin_keys_are_made_for_people_and_revoked_at_once(office: Office, api: Api) -> None:
    made = api.post("/admins", {"name": "Grace Hopper", "role": "read"}, 201)
    client = TestClient(
        admin_app(office.state, office.store), headers={"Authorization": f"Bearer {made['secret']}"}
    )
    assert client.get(PREFIX + "/orgs").status_code == 200
    api.post(f"/admins/{made['admin']['id']}/revoke", {})
    assert client.get(PREFIX + "/orgs").status_code == 401
    assert client.get(PREFIX + "/ledger").status_code == 401


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.method} {o.path}")
def test_no_operation_is_open_to_strangers_or_to_a_lesser_role(
    office: Office, operation: Operation
) -> None:
    app = admin_app(office.state, office.store, office.ledger)
    path = PREFIX + operation.path.replace("{id}", "acme")
    lesser = [role for role in Role if not _suffices(role, operation.role)]
    for headers in ({}, {"Authorization": "Bearer la-nobody"}, {"Authorization": "Basic eDp5"}):
        answer = TestClient(app).request(operation.method, path, json={}, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    for role in lesser:
        answer = TestClient(app).request(
            operation.method, path, json={}, headers=office.bearer(role)
        )
        assert answer.status_code == 403


def _suffices(role: Role, needed: Role) -> bool:
    return list(Role).index(role) >= list(Role).index(needed)


def test_an_api_key_is_no_admin_key(office: Office, api: Api) -> None:
    key = api.post("/accounts/acme/keys", {}, 201)["secret"]
    client = TestClient(
        admin_app(office.state, office.store), headers={"Authorization": f"Bearer {key}"}
    )
    assert client.get(PREFIX + "/orgs").status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "match"),
    [
        (
            "POST",
            "/orgs",
            {"json": {"id": "x", "nmae": "y"}},
            422,
            "no field nmae; the fields are id",
        ),
        ("POST", "/orgs", {"json": {"id": "X"}}, 422, "id: String should match"),
        ("POST", "/orgs", {"json": {"id": "org-acme"}}, 409, "already"),
        (
            "POST",
            "/orgs",
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
            400,
            "JSON",
        ),
        ("POST", "/orgs", {"content": b"{}"}, 415, "application/json"),
        ("POST", "/orgs", {"json": {"id": "x", "name": "y" * 70_000}}, 413, "65536 bytes"),
        ("GET", "/orgs/none", {}, 404, "no organisation 'none'"),
        ("GET", "/orgs/..%2F..", {}, 404, ""),
        ("GET", "/orgs?limit=0", {}, 422, "limit"),
        ("GET", "/orgs?limit=1&limit=2", {}, 422, "twice"),
        ("GET", "/orgs?size=1", {}, 422, "no field size; the fields are after, limit"),
        ("POST", "/accounts/acme/standing/approve", {"json": {}}, 409, "nothing waits"),
        ("DELETE", "/orgs", {}, 405, "Method Not Allowed"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_status(
    api: Api, method: str, path: str, sent: dict[str, Any], status: int, match: str
) -> None:
    answer = api.client.request(method, PREFIX + path, **sent)
    assert answer.status_code == status
    assert match in answer.json()["error"]


def test_lists_come_in_pages(api: Api) -> None:
    for n in range(5):
        api.post("/orgs", {"id": f"o{n}"}, 201)
    first = api.get("/orgs?limit=4")
    second = api.get(f"/orgs?limit=4&after={first[-1]['id']}")
    assert [o["id"] for o in first + second] == ["o0", "o1", "o2", "o3", "o4", "org-acme"]


def test_a_database_that_is_gone_is_a_503(office: Office, api: Api) -> None:
    office.state.database.close()
    database = office.state.folder / "state.db"
    database.rename(office.state.folder / "away")
    database.mkdir()
    assert "unable to open database file" in api.get("/orgs", 503)["error"]


@pytest.fixture(scope="module")
def described(fuzzed_office: Office) -> Any:
    """The document as schemathesis reads it, with the app behind it."""
    app = admin_app(fuzzed_office.state, fuzzed_office.store, fuzzed_office.ledger)
    text = TestClient(app).get(PREFIX + "/openapi.json").json()
    del text["security"]  # every case is sent with a good key; strangers have a test of their own
    loaded: Any = schemathesis.openapi.from_dict(text)
    loaded.app = app
    return loaded


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.method} {o.path}")
def test_whatever_is_sent_is_answered_as_the_document_says(
    fuzzed_office: Office, described: Any, operation: Operation, mode: GenerationMode
) -> None:
    cases = described[PREFIX + operation.path][operation.method].as_strategy(generation_mode=mode)

    @settings(max_examples=5, deadline=None, suppress_health_check=CHECKS, database=None)
    @given(case=cases)
    def each(case: Any) -> None:
        case.call_and_validate(headers=fuzzed_office.bearer())

    with suppress(Unsatisfiable):  # nothing can be sent wrongly where nothing is sent
        each()
