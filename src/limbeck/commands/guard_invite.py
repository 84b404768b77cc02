"""`limbeck guard invite`: the shortest way to a key."""

from typing import Annotated

import typer

from limbeck.commands import guard_show as show
from limbeck.commands.guard_show import FOLDER, AsJson, Folder, opened, user

PLAN = "standard"


def register(app: typer.Typer) -> None:
    """Add this command to `limbeck guard`."""
    app.command("invite")(invite)


def invite(
    name: Annotated[str, typer.Argument(help="A short name for the owner and the account.")],
    plan: Annotated[str, typer.Option(help="The account's plan.")] = PLAN,
    as_json: AsJson = False,
    folder: Folder = FOLDER,
) -> None:
    """Make an organisation, an account of the same name and a key, and show the key: once.

    The plan `standard` is made where it is missing: every model, plain answers, no budget.
    """
    from limbeck.guard.account import Plan
    from limbeck.guard.state.keys import create_key
    from limbeck.guard.state.organisations import create_organisation
    from limbeck.guard.state.plans import find_plan, write_plan
    from limbeck.guard.state.register import open_account

    with opened(folder) as state, state.change(user()) as change:
        if plan == PLAN and find_plan(change.connection, PLAN) is None:
            write_plan(change, Plan(PLAN))
        create_organisation(change, name)
        open_account(change, org=name, plan_id=plan, id=name)
        made = create_key(change, state.pepper, name)
    show.secret(made.key, made.secret, as_json)
