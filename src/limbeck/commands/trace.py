"""`limbeck trace …`: seal coins, audit a suspect, make and verify a bundle."""

import typer

app = typer.Typer(
    help="Say whether a model was trained on another's answers, with a known error rate.",
    no_args_is_help=True,
)
