"""`limbeck guard init|org|plan|account|key|admin …`: who may ask, and how much."""

import time
from typing import Annotated

import typer

from limbeck.commands import guard_show as show
from limbeck.commands.guard_show import FOLDER, AsJson, Folder, opened, user

org_app = typer.Typer(help="Organisations: the owners of accounts.", no_args_is_help=True)
plan_app = typer.Typer(help="Plans: models, capabilities and budgets.", no_args_is_help=True)
account_app = typer.Typer(help="Accounts: who is charged and judged.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)
admin_app = typer.Typer(help="Keys of the admin API and the console.", no_args_is_help=True)

Budgets = Annotated[
    list[str] | None,
    typer.Option("--budget", metavar="MEASURE/WINDOW=N", help="requests, tokens or cost."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to `limbeck guard`."""
    app.command("init")(init)
    for name, group in (
        ("org", org_app),
        ("plan", plan_app),
        ("account", account_app),
        ("key", key_app),
        ("admin", admin_app),
    ):
        app.add_typer(group, name=name)


def init(
    folder: Folder = FOLDER,
    admin: Annotated[
        str | None, typer.Option(help="Also make an admin key that may sign, for this person.")
    ] = None,
) -> None:
    """Make a guard's folder: settings, pepper and database; or bring an old one up to date."""
    from limbeck.extras import need

    need("limbeck guard", "guard", "sqlalchemy", "alembic")
    from limbeck.guard.state.admins import Role, create_admin
    from limbeck.guard.state.home import init_state

    state = init_state(folder)
    try:
        print(f"{folder} is ready; {state.database.name}")
        if admin is not None:
            with state.change(user()) as change:
                made, text = create_admin(change, state.pepper, admin, Role.SIGN)
            show.secret(made, text, as_json=False)
    finally:
        state.close()


@org_app.command("create")
def org_create(
    id: Annotated[str, typer.Argument(help="A short name, such as acme.")],
    name: Annotated[str, typer.Option(help="As people call it.")] = "",
    domain: Annotated[list[str] | None, typer.Option(help="A verified domain.")] = None,
    payment: Annotated[
        list[str] | None, typer.Option(help="A payment fingerprint; only its hash is kept.")
    ] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Make an organisation."""
    from limbeck.guard.state.organisations import create_organisation

    with opened(folder) as state, state.change(user()) as change:
        hashed = [state.pepper.payment(p) for p in payment or ()]
        made = create_organisation(change, id, name=name, payment=hashed, domains=domain or ())
    show.one(made, as_json)


@org_app.command("identify")
def org_identify(
    id: str,
    domain: Annotated[list[str] | None, typer.Option(help="A verified domain.")] = None,
    payment: Annotated[
        list[str] | None, typer.Option(help="A payment fingerprint; only its hash is kept.")
    ] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Add marks by which the owner is known again."""
    from limbeck.guard.state.organisations import identify_organisation

    with opened(folder) as state, state.change(user()) as change:
        hashed = [state.pepper.payment(p) for p in payment or ()]
        known = identify_organisation(change, id, payment=hashed, domains=domain or ())
    show.one(known, as_json)


@org_app.command("list")
def org_list(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """List organisations."""
    from limbeck.guard.state.organisations import organisations

    with opened(folder) as state, state.read() as connection:
        show.many(organisations(connection), ("id", "name", "domains", "created"), as_json)


@org_app.command("show")
def org_show(id: str, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Show an organisation."""
    from limbeck.guard.state.organisations import organisation

    with opened(folder) as state, state.read() as connection:
        show.one(organisation(connection, id), as_json)


@plan_app.command("create")
def plan_create(
    id: Annotated[str, typer.Argument(help="A short name, such as standard.")],
    model: Annotated[list[str] | None, typer.Option(help="A model. [default: all]")] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="logprobs, logit_bias, n, seed, reasoning, …")
    ] = None,
    budget: Budgets = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Change the plan, for every account that has it.")
    ] = False,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Write a plan."""
    from limbeck.guard.account import ALL, Plan
    from limbeck.guard.state.plans import parse_budget, write_plan

    models = tuple(model) if model else ALL
    budgets = tuple(parse_budget(text) for text in budget or ())
    plan = Plan(id, models, frozenset(capability or ()), budgets)
    with opened(folder) as state, state.change(user()) as change:
        write_plan(change, plan, replace=replace)
    show.one(plan, as_json)


@plan_app.command("list")
def plan_list(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """List plans."""
    from limbeck.guard.state.plans import plans

    with opened(folder) as state, state.read() as connection:
        show.many(plans(connection), ("id", "models", "capabilities", "budgets"), as_json)


@plan_app.command("show")
def plan_show(id: str, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Show a plan."""
    from limbeck.guard.state.plans import plan

    with opened(folder) as state, state.read() as connection:
        show.one(plan(connection, id), as_json)


@account_app.command("create")
def account_create(
    org: Annotated[str, typer.Option(help="The organisation that owns it.")],
    plan: Annotated[str, typer.Option(help="What it may do.")],
    id: Annotated[str | None, typer.Argument(help="A short name. [default: drawn]")] = None,
    name: Annotated[str, typer.Option(help="As people call it.")] = "",
    reseller: Annotated[
        bool,
        typer.Option("--reseller", help="Requests name the user behind them, in the field user."),
    ] = False,
    user_required: Annotated[
        bool, typer.Option("--user-required", help="Refuse a reseller's requests without a user.")
    ] = False,
    user_budget: Annotated[
        list[str] | None,
        typer.Option(metavar="MEASURE/WINDOW=N", help="For each user behind a reseller."),
    ] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Open an account."""
    from limbeck.guard.account import SubAccounts
    from limbeck.guard.state.plans import parse_budget
    from limbeck.guard.state.register import open_account

    resells = reseller or user_required or bool(user_budget)
    budgets = tuple(parse_budget(text) for text in user_budget or ())
    rules = SubAccounts(budgets, user_required) if resells else None
    with opened(folder) as state, state.change(user()) as change:
        made = open_account(change, org=org, plan_id=plan, id=id, name=name, sub_accounts=rules)
    show.one(made, as_json)


@account_app.command("list")
def account_list(
    org: Annotated[str | None, typer.Option(help="Of this organisation only.")] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """List accounts."""
    from limbeck.guard.state.register import accounts

    with opened(folder) as state, state.read() as connection:
        columns = ("id", "org", "plan", "name", "created", "closed")
        show.many(accounts(connection, org=org), columns, as_json)


@account_app.command("show")
def account_show(id: str, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Show an account: standing, keys, declared uses, what it spent, and what was done to it."""
    from limbeck.guard.state.dossier import dossier
    from limbeck.guard.state.stores import open_store

    with opened(folder) as state:
        store = open_store(state)
        try:
            with state.read() as connection:
                found = dossier(connection, store, id)
        finally:
            store.shut()
    show.one(found, as_json)


@account_app.command("move")
def account_move(
    id: str, plan: Annotated[str, typer.Option()], folder: Folder = FOLDER, as_json: AsJson = False
) -> None:
    """Give an account another plan."""
    from limbeck.guard.state.register import move_account

    with opened(folder) as state, state.change(user()) as change:
        moved = move_account(change, id, plan)
    show.one(moved, as_json)


@account_app.command("close")
def account_close(id: str, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Close an account: its keys open nothing any more."""
    from limbeck.guard.state.register import close_account

    with opened(folder) as state, state.change(user()) as change:
        closed = close_account(change, id)
    show.one(closed, as_json)


@key_app.command("create")
def key_create(
    account: str,
    label: Annotated[str, typer.Option(help="Where it is used.")] = "",
    expires: Annotated[str | None, typer.Option(help="90d, or a date. [default: never]")] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Make a key, and show it: once."""
    from limbeck.guard.moment import parse_moment
    from limbeck.guard.state.keys import create_key

    ends = None if expires is None else parse_moment(expires, time.time())
    with opened(folder) as state, state.change(user()) as change:
        made = create_key(change, state.pepper, account, label=label, expires=ends)
    show.secret(made.key, made.secret, as_json)


@key_app.command("list")
def key_list(
    account: Annotated[str | None, typer.Argument()] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """List keys by their ids."""
    from limbeck.guard.state.keys import keys

    with opened(folder) as state, state.read() as connection:
        columns = ("id", "account", "label", "created", "expires", "revoked")
        show.many(keys(connection, account), columns, as_json)


@key_app.command("rotate")
def key_rotate(
    id: Annotated[str, typer.Argument(help="The key's id, not the key.")],
    overlap: Annotated[str, typer.Option(help="How long the old one still opens.")] = "1d",
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Make a key that takes another's place."""
    from limbeck.guard.moment import parse_span
    from limbeck.guard.state.keys import rotate_key

    seconds = parse_span(overlap)
    with opened(folder) as state, state.change(user()) as change:
        made = rotate_key(change, state.pepper, id, overlap_seconds=seconds)
    show.secret(made.key, made.secret, as_json)


@key_app.command("revoke")
def key_revoke(id: str, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Make a key open nothing any more, in every worker within a second."""
    from limbeck.guard.state.keys import revoke_key

    with opened(folder) as state, state.change(user()) as change:
        revoked = revoke_key(change, id)
    show.one(revoked, as_json)


@admin_app.command("create")
def admin_create(
    name: Annotated[str, typer.Argument(help="The person; what they do is done in this name.")],
    role: Annotated[str, typer.Option(help="read, operate or sign.")] = "read",
    expires: Annotated[str | None, typer.Option(help="90d, or a date. [default: never]")] = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Make an admin key, and show it: once."""
    from limbeck.errors import AccountError
    from limbeck.guard.moment import parse_moment
    from limbeck.guard.state.admins import Role, create_admin

    if role not in list(Role):
        raise AccountError(f"a role is {', '.join(Role)}, got {role!r}")
    ends = None if expires is None else parse_moment(expires, time.time())
    with opened(folder) as state, state.change(user()) as change:
        made, text = create_admin(change, state.pepper, name, Role(role), expires=ends)
    show.secret(made, text, as_json)


@admin_app.command("list")
def admin_list(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """List admin keys."""
    from limbeck.guard.state.admins import admins

    with opened(folder) as state, state.read() as connection:
        columns = ("id", "name", "role", "created", "expires", "revoked")
        show.many(admins(connection), columns, as_json)


@admin_app.command("revoke")
def admin_revoke(id: str, folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Make an admin key open nothing any more, and end its sessions."""
    from limbeck.guard.state.admins import revoke_admin

    with opened(folder) as state, state.change(user()) as change:
        revoked = revoke_admin(change, id)
    show.one(revoked, as_json)
