"""`limbeck trace …`: seal coins, audit a suspect, make and verify a bundle."""

import typer

from limbeck.commands import trace_audit, trace_bundle, trace_live

app = typer.Typer(
    help="Say whether a model was trained on another's answers, with a known error rate.",
    no_args_is_help=True,
)
trace_audit.register(app)
trace_bundle.register(app)
trace_live.register(app)
