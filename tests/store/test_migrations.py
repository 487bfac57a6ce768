"""The migrations and the tables in `schema.py` are the same thing."""

import re
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import Server
from sqlalchemy import create_engine

from mergesearch.store.migrate import SCRIPTS
from mergesearch.store.open import open_store
from mergesearch.store.schema import SCHEMA_VERSION, metadata


def tables(path: Path) -> dict[str, set[str]]:
    """Name of each table and index -> the parts that made it; a column that was added later stands behind others."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'")
    made = {name: {part.strip() for part in re.split(r",(?![^(]*\))", _body(sql))} for name, sql in rows}
    connection.close()
    return made


def _body(sql: str) -> str:
    """What made a table or an index, the parenthesis around the columns opened."""
    head, _, rest = " ".join(sql.split()).partition("(")
    columns, _, tail = rest.rpartition(")")
    return f"{head} {tail}, {columns}"


def test_migrations_make_the_schema(tmp_path: Path) -> None:
    """A migrated store has exactly the tables of `schema.py`, for Alembic and to the word for SQLite."""
    open_store(f"sqlite:///{tmp_path}/migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/migrated.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    engine = create_engine(f"sqlite:///{tmp_path}/direct.db")
    metadata.create_all(engine)
    engine.dispose()
    assert tables(tmp_path / "migrated.db") == tables(tmp_path / "direct.db")


@pytest.mark.postgres
def test_migrations_make_the_schema_in_postgresql(postgres: Server) -> None:
    """A migrated database has exactly the tables of `schema.py` for Alembic, and the indexes and checks by name."""
    migrated, direct = postgres.new_database(), postgres.new_database()
    open_store(postgres.url(migrated)).close()
    engine = create_engine(postgres.url(migrated).replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    engine = create_engine(postgres.url(direct).replace("postgresql://", "postgresql+psycopg://"))
    metadata.create_all(engine)
    engine.dispose()
    made = []
    for name in (migrated, direct):
        with postgres.admin(name) as connection:
            indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename != 'alembic_version'"
            checks = (
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
                "WHERE connamespace = 'public'::regnamespace"
            )
            columns = (
                "SELECT table_name, column_name, data_type, is_nullable, column_default "
                "FROM information_schema.columns WHERE table_schema = 'public'"
            )
            found = [set(connection.execute(query).fetchall()) for query in (indexes, checks, columns)]
            made.append([{row for row in rows if not str(row[0]).startswith("alembic")} for rows in found])
    for one, other in zip(*made, strict=True):
        assert {row for row in one if "alembic_version" not in str(row)} == other


def test_version_is_that_of_the_newest_migration() -> None:
    """SCHEMA_VERSION is the head, and the migrations form one line of numbers without a hole."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [f"{SCHEMA_VERSION:04d}"]
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == [f"{number:04d}" for number in range(SCHEMA_VERSION, 0, -1)]
