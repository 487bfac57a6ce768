"""Bringing a database to the schema this version knows. Alembic is imported only when something has to change."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from mergesearch.errors import StoreError, StoreVersionError
from mergesearch.store.database import Database
from mergesearch.store.schema import SCHEMA_VERSION

SCRIPTS = Path(__file__).parent / "migrations"


def make_current(database: Database) -> None:
    """Create or upgrade the tables if need be.

    Raises:
        StoreVersionError: the tables are newer than this version.
        StoreError: the database holds something else, or is too old itself.
        DBAPIError: the database refused.
    """
    with database.reader.begin() as connection:
        database.check(connection)
        if stored_version(connection, database.where) == SCHEMA_VERSION:
            return
    with database.writer.begin() as connection:
        database.lock_schema(connection)
        # Read again under the lock: another process may have done the work meanwhile.
        if stored_version(connection, database.where) < SCHEMA_VERSION:
            upgrade(connection)


def stored_version(connection: Connection, where: str) -> int:
    """Schema version of the database behind `connection`; 0 for an empty one. Raises as `make_current` does."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return 0
    if not {"alembic_version", "studies"} <= set(tables):
        raise StoreError(f"{where} is a database, but not one of mergesearch; name another one")
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is None or not found.isdecimal():
        raise StoreError(f"{where} has schema version {found!r}, which mergesearch never wrote; name another one")
    if int(found) > SCHEMA_VERSION:
        raise StoreVersionError(
            f"{where} has schema version {int(found)}, this mergesearch knows up to {SCHEMA_VERSION}; "
            "upgrade mergesearch to open it"
        )
    return int(found)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to `revision` within the transaction of `connection`."""
    from alembic import command  # 0.2 s, needed once in a store's life
    from alembic.config import Config

    config = Config()
    # ConfigParser reads '%' as the start of a reference.
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
