"""The console: who gets in, what the pages say, what a form does, and the same with a keyboard in a real browser."""

import re
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from browser import Browser
from guardoffice import Office
from guardstate import T0, furnish, wait_for
from limbeck.guard.account import BlockKind, SubAccounts, UseKind
from limbeck.guard.console.app import console_app
from limbeck.guard.console.session import COOKIE, Sessions
from limbeck.guard.decision import Action, Reason
from limbeck.guard.sanction import Mode, Proposal, SanctionRules
from limbeck.guard.state.admins import Role, admins, revoke_admin
from limbeck.guard.state.appeals import appeals, file_appeal
from limbeck.guard.state.blocks import block
from limbeck.guard.state.standings import propose, standing
from limbeck.guard.state.uses import declare_use, uses

ENFORCE = SanctionRules(mode=Mode.ENFORCE)
NASTY = "<script>alert('x')</script>"


@pytest.fixture
def busy(office: Office) -> Office:
    """An office with something to decide: a proposed block, an appeal, a declared use, a reseller."""
    furnish(office.state, account="shop", sub_accounts=SubAccounts())
    because = (Reason("new_ground_rate", 0.93, "of 400 prompts"), Reason("template_share", 0.88))
    proposal = Proposal(
        "acme", Action.BLOCK, "copying.2", "ab" * 32, because=because, e_value=41_234.0
    )
    with office.state.change("policy") as change:
        propose(change, proposal, ENFORCE)
        milder = replace(proposal, account="shop", user="eve", action=Action.REDUCE, e_value=25.0)
        propose(change, milder, ENFORCE)
        file_appeal(change, ENFORCE, "acme", text=f"We run a public benchmark.\n{NASTY}")
        declare_use(
            change,
            "acme",
            UseKind.EVALUATION,
            starts=T0,
            expires=T0 + 864_000,
            volume=20_000,
            purpose="A benchmark of maths questions, published every month.",
        )
    return office


def login(office: Office, role: Role = Role.SIGN) -> TestClient:
    client = TestClient(console_app(office.state, office.store, office.ledger))
    answer = client.post("/console/login", data={"key": office.keys[role]})
    assert answer.url.path == "/console"
    return client


def token(client: TestClient, path: str = "/console") -> str:
    found = re.search(r'name="token" value="(\w+)"', client.get(path).text)
    assert found is not None
    return found[1]


def test_a_stranger_is_led_to_the_login_and_sees_nothing(busy: Office) -> None:
    client = TestClient(console_app(busy.state, busy.store, busy.ledger), follow_redirects=False)
    for path in ("", "/queue", "/ledger", "/accounts/acme"):
        answer = client.get("/console" + path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/login")
        assert "acme" not in answer.text
    assert client.post("/console/accounts/acme/approve", data={}).status_code == 303
    with busy.state.read() as connection:
        assert standing(connection, "acme").action is Action.HOLD


def test_a_wrong_key_opens_no_session(busy: Office) -> None:
    client = TestClient(console_app(busy.state, busy.store))
    for key in ("", "la-nobody", busy.keys[Role.SIGN] + "x", "é"):
        answer = client.post("/console/login", data={"key": key})
        assert answer.status_code == 403
        assert "no good admin key" in answer.text
        assert COOKIE not in client.cookies


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(busy: Office) -> None:
    client = TestClient(console_app(busy.state, busy.store), follow_redirects=False)
    answer = client.post("/console/login", data={"key": busy.keys[Role.READ]})
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/console"))
    assert "secure" not in cookie
    assert busy.keys[Role.READ] not in answer.headers["set-cookie"]
    safe = TestClient(
        console_app(busy.state, busy.store),
        base_url="https://guard.example",
        follow_redirects=False,
    )
    answer = safe.post("/console/login", data={"key": busy.keys[Role.READ]})
    assert "secure" in answer.headers["set-cookie"].lower()


def test_a_forged_or_old_session_is_none(busy: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(busy.state.pepper)
    cookie = sessions.begin("someone")
    session = sessions.read(cookie)
    assert session is not None
    assert session.admin == "someone"
    assert sessions.read(cookie[:-5] + ("a" if cookie[-5] != "a" else "b") + cookie[-4:]) is None
    assert sessions.read("") is None
    later = time.time() + 8 * 3600 + 5
    monkeypatch.setattr(time, "time", lambda: later)
    assert sessions.read(cookie) is None


def test_a_revoked_admin_is_out_at_once(busy: Office) -> None:
    client = login(busy)
    with busy.state.change("test") as change:
        mine = next(a for a in admins(change.connection) if a.role is Role.SIGN)
        revoke_admin(change, mine.id)
    assert client.get("/console").url.path == "/console/login"


def test_logging_out_ends_the_session_in_this_browser(busy: Office) -> None:
    client = login(busy)
    assert (
        client.post("/console/logout", data={"token": token(client)}).url.path == "/console/login"
    )
    assert client.get("/console").url.path == "/console/login"


def test_the_pages_say_what_is_so_and_escape_what_strangers_wrote(busy: Office) -> None:
    client = login(busy, Role.READ)
    overview = client.get("/console").text
    for part in ("41,234", "Shadow mode", "copying.2", "new_ground_rate", "hold", "eve"):
        assert part in overview
    assert overview.index("acme") < overview.index("shop")
    account = client.get("/console/accounts/acme").text
    for part in (
        "measure proposed",
        "by policy",
        "0 of 50",
        "ledger: decision",
        "record 6",
        "abababababab…",
    ):
        assert part in account
    queue = client.get("/console/queue").text
    assert NASTY not in queue
    assert "&lt;script&gt;" in queue
    for part in ("2026-09-24 14:13 UTC", "20,000 requests", "We run a public benchmark."):
        assert part in queue
    assert "example.org/log" in client.get("/console/ledger").text
    assert "No account's id" in client.get("/console?search=zzz").text
    assert "org-shop" in client.get("/console?search=sho").text


def test_every_page_forbids_scripts_frames_and_storing(busy: Office) -> None:
    client = login(busy)
    for path in ("", "/queue", "/ledger", "/accounts/acme", "/accounts/none", "/login"):
        answer = client.get("/console" + path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert "<script" not in answer.text
        assert "style=" not in answer.text


def test_a_form_without_its_token_or_from_another_site_does_nothing(busy: Office) -> None:
    client = login(busy)
    good = token(client)
    sent = [
        ({}, {}),
        ({"token": "x"}, {}),
        ({"token": token(login(busy))}, {}),
        ({"token": good}, {"Origin": "https://evil.example"}),
        ({"token": good}, {"Origin": "null"}),
    ]
    for data, headers in sent:
        answer = client.post("/console/accounts/acme/approve", data=data, headers=headers)
        assert answer.status_code == 403
    with busy.state.read() as connection:
        assert standing(connection, "acme").action is Action.HOLD
    answer = client.post(
        "/console/accounts/acme/approve",
        data={"token": good},
        headers={"Origin": "http://testserver"},
    )
    assert answer.url.path == "/console/accounts/acme"
    with busy.state.read() as connection:
        signed = standing(connection, "acme")
    assert (signed.action, signed.signed_off_by) == (Action.BLOCK, "Ada Lovelace")


def test_whoever_may_only_look_decides_nothing(busy: Office) -> None:
    client = login(busy, Role.OPERATE)
    assert "Sign:" not in client.get("/console/queue").text
    answer = client.post("/console/accounts/acme/approve", data={"token": token(client)})
    assert answer.status_code == 403
    assert "role sign" in answer.text


def test_appeals_uses_and_blocks_are_decided_from_the_queue(busy: Office) -> None:
    client = login(busy)
    with busy.state.change("Ada Lovelace") as change:
        entry = block(change, BlockKind.ORG, "org-shop", by="Ada Lovelace", reason="resold")
        [appeal] = appeals(change.connection)
        [use] = uses(change.connection)
    assert "resold" in client.get("/console/accounts/shop").text
    form = {"token": token(client)}
    client.post(f"/console/blocks/{entry.id}/restore", data=form)
    client.post(f"/console/uses/{use.id}/approve", data=form)
    answer = client.post(f"/console/appeals/{appeal.id}/decide", data=form)
    assert answer.status_code == 422
    decided = {**form, "uphold": "yes", "answer": "Our mistake."}
    client.post(f"/console/appeals/{appeal.id}/decide", data=decided)
    with busy.state.read() as connection:
        assert standing(connection, "acme").action is Action.ALLOW
        assert appeals(connection)[0].answer == "Our mistake."
        assert uses(connection)[0].approved_by == "Ada Lovelace"
    restored = {**form, "user": "eve", "back": "queue", "reason": "seen"}
    assert client.post("/console/accounts/shop/restore", data=restored).url.path == "/console/queue"
    text = client.get("/console/queue").text
    assert "No appeal is open." in text
    assert "No declared use waits." in text


def test_what_cannot_be_done_is_said_with_its_status(busy: Office) -> None:
    client = login(busy)
    missing = client.get("/console/accounts/none")
    assert missing.status_code == 404
    assert "no account" in missing.text
    twice = client.post("/console/accounts/shop/approve", data={"token": token(client)})
    assert twice.status_code == 409
    assert "nothing waits" in twice.text


@pytest.fixture
def address(busy: Office) -> Generator[str]:
    """The console on a real server."""
    app = console_app(busy.state, busy.store, busy.ledger)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/console"
    server.should_exit = True
    thread.join()


@pytest.fixture
def chromium(tmp_path: Path) -> Generator[Browser]:
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def test_a_person_with_a_keyboard_logs_in_and_signs_without_scripts(
    address: str, busy: Office, chromium: Browser, tmp_path: Path
) -> None:
    chromium.size(1200)
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    chromium.open(address)
    assert chromium.run("location.pathname") == "/console/login"
    wait_for(lambda: chromium.run("document.activeElement.id") == "key", "the form")
    chromium.type(busy.keys[Role.SIGN])
    chromium.press("Enter", loads=True)
    assert "Accounts by evidence" in chromium.text()
    chromium.press("Tab")
    assert chromium.focused() == "Skip to the content"
    _tab_to(chromium, "Queue 3")
    chromium.press("Enter", loads=True)
    assert chromium.run("location.pathname") == "/console/queue"
    _tab_to(chromium, "Sign: block acme")
    outline = chromium.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    chromium.press("Enter", loads=True)
    assert "Nothing waits for a signature." in chromium.text()
    with busy.state.read() as connection:
        assert standing(connection, "acme").signed_off_by == "Ada Lovelace"


def test_the_pages_read_well_in_light_and_dark_wide_and_narrow(
    address: str, busy: Office, chromium: Browser, tmp_path: Path
) -> None:
    chromium.open(f"{address}/login")
    wait_for(lambda: chromium.run("document.activeElement.id") == "key", "the form")
    chromium.type(busy.keys[Role.SIGN])
    chromium.press("Enter", loads=True)
    for scheme in ("light", "dark"):
        chromium.scheme(scheme)
        for width in (1200, 390):
            chromium.size(width)
            for name in ("", "/queue", "/accounts/acme", "/ledger"):
                chromium.open(address + name)
                chromium.picture(
                    tmp_path
                    / f"{name.strip('/').replace('/', '-') or 'overview'}-{scheme}-{width}.png"
                )
                assert chromium.run("document.documentElement.scrollWidth") <= width
                weak = chromium.run(CONTRAST)
                assert weak == [], f"{name} in {scheme}"
                assert chromium.run(UNNAMED) == []
    assert len(list(tmp_path.glob("*.png"))) == 16


def _tab_to(browser: Browser, wanted: str) -> None:
    for _ in range(60):
        if " ".join(browser.focused().split()).startswith(wanted):
            return
        browser.press("Tab")
    raise AssertionError(f"no way to {wanted!r} with the Tab key")


CONTRAST = """
(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parse(c).slice(0, 3).map(v => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if ((parse(c)[3] ?? 1) > 0) return c; }
    return 'rgb(255,255,255)'; };
  const weak = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push([e.tagName, e.textContent.trim().slice(0, 30), ratio]);
  }
  return weak;
})()
"""
"""Finds text with less than 4.5 to 1 against what lies behind it (WCAG 2.2, 1.4.3)."""

UNNAMED = """
[...document.querySelectorAll('input:not([type=hidden]), textarea, button, a, meter')].filter(e =>
  !(e.labels && e.labels.length) && !e.textContent.trim() && !e.getAttribute('aria-labelledby'))
  .map(e => e.outerHTML)
"""
"""Finds controls without a name that a screen reader can say."""
