"""From the URL in a study file to an open store."""

from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean, load
from mergesearch.store import STORES
from mergesearch.store.base import StudyStore

FORMS = "'sqlite:///folder/file.db' (relative), 'sqlite:////folder/file.db' (absolute) or 'memory://'"


def open_store(url: str, *, create: bool = True) -> StudyStore:
    """The store at `url`; a SQLite file is created where none stands, unless `create` is False.

    SQLite takes options behind '?': `timeout` (seconds to wait for a locked file, 30), `mode=ro` (read only),
    `max_pages` (limit of the file's size in database pages). 'memory://' is a new, empty store each time.

    Raises:
        SpecError: the URL cannot be understood.
        StoreVersionError: the file was written by a newer mergesearch.
        StoreError: the file cannot be opened or is not a store.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise SpecError(f"store {url!r} is not a URL; write {FORMS}")
    if scheme.split("+")[0] in ("postgresql", "postgres"):
        raise SpecError(f"store {url!r}: PostgreSQL comes with a later version; for now write {FORMS}")
    if scheme not in STORES:
        raise SpecError(f"store {url!r}: scheme {scheme!r} is unknown{did_you_mean(scheme, STORES)}; write {FORMS}")
    store: StudyStore = load("store", STORES, scheme)(url, create=create)
    return store
