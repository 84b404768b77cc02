"""`limbeck guard use|block|appeal|standing|rules …`: what accounts declare, what is done to them, who decided it."""

import time
from typing import Annotated

import typer

from limbeck.commands import guard_show as show
from limbeck.commands.guard_show import FOLDER, AsJson, By, Folder, opened, user
from limbeck.errors import AccountError

use_app = typer.Typer(help="Declared uses, with scope and expiry.", no_args_is_help=True)
block_app = typer.Typer(help="The block list of owners.", no_args_is_help=True)
appeal_app = typer.Typer(help="Appeals, with a clock.", no_args_is_help=True)
standing_app = typer.Typer(help="What is done to accounts, and why.", no_args_is_help=True)
rules_app = typer.Typer(help="The rules of sanctions.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--user", help="One user behind a reseller.")]


def register(app: typer.Typer) -> None:
    """Add these commands to `limbeck guard`."""
    for name, group in (
        ("use", use_app),
        ("block", block_app),
        ("appeal", appeal_app),
        ("standing", standing_app),
        ("rules", rules_app),
    ):
        app.add_typer(group, name=name)


@use_app.command("create")
def use_create(
    account: str,
    kind: Annotated[str, typer.Option(help="evaluation, distillation or research.")],
    expires: Annotated[str, typer.Option(help="30d, or a date.")],
    starts: Annotated[str | None, typer.Option(help="A date. [default: now]")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model. [default: all]")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Such as /v1/chat/completions. [default: all]")
    ] = None,
    volume: Annotated[int | None, typer.Option(help="Requests in all. [default: any]")] = None,
    purpose: Annotated[str, typer.Option(help="In words.")] = "",
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Declare a use. It covers nothing until it is approved."""
    from limbeck.guard.account import ALL, UseKind
    from limbeck.guard.moment import parse_moment
    from limbeck.guard.state.uses import declare_use

    if kind not in list(UseKind):
        raise AccountError(f"a use is {', '.join(UseKind)}, got {kind!r}")
    now = time.time()
    with opened(folder) as state, state.change(user()) as change:
        made = declare_use(
            change,
            account,
            UseKind(kind),
            starts=change.now if starts is None else parse_moment(starts, now),
            expires=parse_moment(expires, now),
            models=tuple(model) if model else ALL,
            endpoints=tuple(endpoint) if endpoint else ALL,
            volume=volume,
            purpose=purpose,
        )
    show.one(made, as_json)


@use_app.command("list")
def use_list(
    account: Annotated[str | None, typer.Argument()] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """List declared uses."""
    from limbeck.guard.state.uses import uses

    with opened(folder) as state, state.read() as connection:
        columns = ("id", "account", "kind", "starts", "expires", "volume", "approved_by")
        show.many(uses(connection, account), (*columns, "withdrawn"), as_json)


@use_app.command("show")
def use_show(id: str, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Show a declared use."""
    from limbeck.guard.state.uses import use

    with opened(folder) as state, state.read() as connection:
        show.one(use(connection, id), as_json)


@use_app.command("approve")
def use_approve(id: str, by: By, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Let a declared use cover what it names."""
    from limbeck.guard.state.uses import approve_use

    with opened(folder) as state, state.change(by) as change:
        approved = approve_use(change, id, by)
    show.one(approved, as_json)


@use_app.command("revoke")
def use_revoke(id: str, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Let a declared use cover nothing from now on."""
    from limbeck.guard.state.uses import withdraw_use

    with opened(folder) as state, state.change(user()) as change:
        withdrawn = withdraw_use(change, id)
    show.one(withdrawn, as_json)


@block_app.command("create")
def block_create(
    by: By,
    org: Annotated[str | None, typer.Option(help="Block an organisation.")] = None,
    payment: Annotated[
        str | None, typer.Option(help="Block whoever pays with this fingerprint.")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Block a domain and what is under it.")] = None,
    clause: Annotated[str, typer.Option(help="The clause of the policy.")] = "",
    reason: Annotated[str, typer.Option(help="What the owner is told.")] = "",
    expires: Annotated[str | None, typer.Option(help="90d, or a date. [default: never]")] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Block an owner: every account and key, those made later too."""
    from limbeck.guard.account import BlockKind
    from limbeck.guard.moment import parse_moment
    from limbeck.guard.state.blocks import block

    named = {BlockKind.ORG: org, BlockKind.PAYMENT: payment, BlockKind.DOMAIN: domain}
    given = [(kind, value) for kind, value in named.items() if value is not None]
    if len(given) != 1:
        raise AccountError("name whom to block with one of --org, --payment and --domain")
    [(kind, value)] = given
    ends = None if expires is None else parse_moment(expires, time.time())
    with opened(folder) as state, state.change(by) as change:
        hashed = state.pepper.payment(value) if kind is BlockKind.PAYMENT else value
        made = block(change, kind, hashed, by=by, clause=clause, reason=reason, expires=ends)
    show.one(made, as_json)


@block_app.command("list")
def block_list(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """List blocks, lifted ones too."""
    from limbeck.guard.state.blocks import blocks

    with opened(folder) as state, state.read() as connection:
        columns = ("id", "kind", "value", "since", "by", "expires", "lifted")
        show.many(blocks(connection), columns, as_json)


@block_app.command("restore")
def block_restore(id: str, by: By, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Take an owner off the list."""
    from limbeck.guard.state.blocks import lift

    with opened(folder) as state, state.change(by) as change:
        lifted = lift(change, id, by)
    show.one(lifted, as_json)


@appeal_app.command("create")
def appeal_create(
    account: str,
    text: Annotated[str, typer.Option(help="What the account says.")],
    name: Name = "",
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """File an appeal; its clock starts."""
    from limbeck.guard.state.appeals import file_appeal
    from limbeck.guard.state.rules import sanction_rules

    with opened(folder) as state, state.change(user()) as change:
        rules = sanction_rules(change.connection)
        filed = file_appeal(change, rules, account, user=name, text=text)
    show.one(filed, as_json)


@appeal_app.command("list")
def appeal_list(
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those past their time.")] = False,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """List appeals, the next one due first."""
    from limbeck.guard.state.appeals import appeals

    with opened(folder) as state, state.read() as connection:
        now = state.clock()
        found = [a for a in appeals(connection) if not overdue or a.overdue(now)]
        show.many(found, ("id", "account", "user", "filed", "due", "state", "decided_by"), as_json)


@appeal_app.command("approve")
def appeal_approve(
    id: str,
    by: By,
    answer: Annotated[str, typer.Option(help="What the account is told.")] = "",
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Uphold an appeal: the account is restored."""
    _decide(id, by, answer, folder, as_json, uphold=True)


@appeal_app.command("reject")
def appeal_reject(
    id: str,
    by: By,
    answer: Annotated[str, typer.Option(help="What the account is told.")] = "",
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Reject an appeal: the sanction stays."""
    _decide(id, by, answer, folder, as_json, uphold=False)


@appeal_app.command("lapse")
def appeal_lapse(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Close the appeals that nobody decided in time, as the gateway does by itself."""
    from limbeck.guard.state.appeals import lapse_overdue
    from limbeck.guard.state.rules import sanction_rules

    with opened(folder) as state, state.change("clock") as change:
        lapsed = lapse_overdue(change, sanction_rules(change.connection))
    show.many(lapsed, ("id", "account", "user", "due"), as_json)


@standing_app.command("list")
def standing_list(
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only those that ask for a signature.")
    ] = False,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """List standings, the strongest evidence first."""
    from limbeck.guard.state.standings import standings
    from limbeck.guard.state.standings import waiting as in_waiting

    with opened(folder) as state, state.read() as connection:
        found = in_waiting(connection) if waiting else standings(connection)
        columns = ("account", "user", "action", "proposed", "e_value", "clause", "since")
        show.many(found, (*columns, "signed_off_by"), as_json)


@standing_app.command("show")
def standing_show(
    account: str, name: Name = "", folder: Folder = FOLDER, as_json: AsJson = False
) -> None:
    """Show what is done to an account, and why."""
    from limbeck.guard.state.register import account as find
    from limbeck.guard.state.standings import standing

    with opened(folder) as state, state.read() as connection:
        find(connection, account)
        show.one(standing(connection, account, name), as_json)


@standing_app.command("approve")
def standing_approve(
    account: str, by: By, name: Name = "", folder: Folder = FOLDER, as_json: AsJson = False
) -> None:
    """Sign what is proposed: it comes into force."""
    from limbeck.guard.state.standings import sign_off

    with opened(folder) as state, state.change(by) as change:
        signed = sign_off(change, account, by, user=name)
    show.one(signed, as_json)


@standing_app.command("restore")
def standing_restore(
    account: str,
    by: By,
    name: Name = "",
    reason: Annotated[str, typer.Option(help="For the timeline.")] = "",
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Lift everything that is done to an account, within a second in every worker."""
    from limbeck.guard.state.standings import restore

    with opened(folder) as state, state.change(by) as change:
        restored = restore(change, account, by, user=name, reason=reason)
    show.one(restored, as_json)


@standing_app.command("vouch")
def standing_vouch(
    account: str,
    name: Annotated[str, typer.Option("--user", help="The user behind the reseller.")],
    by: By,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Let a user behind a reseller be judged alone."""
    from limbeck.guard.state.standings import vouch

    with opened(folder) as state, state.change(by) as change:
        vouched = vouch(change, account, name, by)
    show.one(vouched, as_json)


@rules_app.command("show")
def rules_show(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Show the rules of sanctions."""
    from limbeck.guard.state.rules import sanction_rules

    with opened(folder) as state, state.read() as connection:
        show.one(sanction_rules(connection), as_json)


@rules_app.command("set")
def rules_set(
    values: Annotated[list[str], typer.Argument(metavar="RULE=VALUE", help="mode=enforce, …")],
    by: By,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Change rules of sanctions, for every worker."""
    from limbeck.guard.state.rules import set_sanction_rules

    pairs = {name: value for name, _, value in (text.partition("=") for text in values)}
    with opened(folder) as state, state.change(by) as change:
        rules = set_sanction_rules(change, **pairs)
    show.one(rules, as_json)


def _decide(id: str, by: str, answer: str, folder: Folder, as_json: bool, *, uphold: bool) -> None:
    from limbeck.guard.state.appeals import decide_appeal

    with opened(folder) as state, state.change(by) as change:
        decided = decide_appeal(change, id, uphold=uphold, by=by, answer=answer)
    show.one(decided, as_json)
