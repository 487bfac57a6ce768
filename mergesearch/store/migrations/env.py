"""Run by Alembic for each upgrade, on the connection and within the transaction of `store/migrate.py`."""

from alembic import context

from mergesearch.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
