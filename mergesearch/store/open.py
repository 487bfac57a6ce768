"""From the URL in a study file to an open store."""

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean, load
from mergesearch.store import STORES
from mergesearch.store.base import StudyStore
from mergesearch.store.urls import refuse_password, shown

FORMS = (
    "'sqlite:///folder/file.db' (relative), 'sqlite:////folder/file.db' (absolute), "
    "'postgresql://user@host:5432/database' or 'memory://'"
)
ALIASES = {"postgres": "postgresql", "postgresql+psycopg": "postgresql"}


def open_store(url: str, *, create: bool = True, secret: bool = False) -> StudyStore:
    """The store at `url`; a SQLite file is created where none stands, unless `create` is False.

    SQLite takes options behind '?': `timeout` (seconds to wait for a locked file, 30), `mode=ro` (read only),
    `max_pages` (limit of the file's size in database pages). PostgreSQL takes `timeout` (seconds that a database that
    is away is waited for, 120) and libpq's own (`sslmode`, `host` for the folder of a unix socket, ...). 'memory://' is
    a new, empty store each time.

    Args:
        secret: the URL comes from where only its owner reads it, the environment, so it may hold a password.

    Raises:
        SpecError: the URL cannot be understood, or holds a password that it should not.
        StoreVersionError: the store was written by a newer mergesearch.
        StoreError: the store cannot be opened or is not one.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        what = "the store" if secret or "@" in url or "passw" in url.lower() else f"store {url!r}"
        raise SpecError(f"{what} is not a URL; write {FORMS}")
    kind = ALIASES.get(scheme, scheme)
    if kind not in STORES:
        raise SpecError(
            f"store {shown(url)!r}: scheme {scheme!r} is unknown{did_you_mean(scheme, STORES)}; write {FORMS}"
        )
    if not secret:
        refuse_password(url)
    store: StudyStore = load("store", STORES, kind)(f"{kind}://{rest}", create=create)
    return store
