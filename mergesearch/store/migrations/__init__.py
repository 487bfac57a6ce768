"""Alembic's steps from one schema version to the next; `store/migrate.py` runs them. See `versions/`."""
