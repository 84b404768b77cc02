"""Run migrations on the connection that `database.migrate` hands over; there is no other way in."""

from alembic import context

from limbeck.guard.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a table in place
    transaction_per_migration=False,
)
context.run_migrations()
