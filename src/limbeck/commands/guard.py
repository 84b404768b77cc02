"""`limbeck guard …`: serve a model behind the gateway, keep its accounts, read its evidence."""

import typer

from limbeck.commands import (
    guard_accounts,
    guard_console,
    guard_invite,
    guard_ledger,
    guard_sanctions,
    guard_serve,
    guard_watch,
)

app = typer.Typer(
    help="Serve a model behind a gateway that hardens it against distillation.",
    no_args_is_help=True,
)
guard_accounts.register(app)
guard_console.register(app)
guard_invite.register(app)
guard_ledger.register(app)
guard_sanctions.register(app)
guard_serve.register(app)
guard_watch.register(app)
