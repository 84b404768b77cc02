"""`limbeck guard …`: serve a model behind the gateway, keep its accounts, read its evidence."""

import typer

from limbeck.commands import guard_watch

app = typer.Typer(
    help="Serve a model behind a gateway that hardens it against distillation.",
    no_args_is_help=True,
)
guard_watch.register(app)
