"""`limbeck guard …`: serve a model behind the gateway, keep its accounts, read its evidence."""

import typer

from limbeck.commands import guard_accounts, guard_console, guard_ledger, guard_sanctions

app = typer.Typer(
    help="Serve a model behind a gateway that hardens it against distillation.",
    no_args_is_help=True,
)
guard_accounts.register(app)
guard_console.register(app)
guard_ledger.register(app)
guard_sanctions.register(app)
