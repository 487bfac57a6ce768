"""Study stores, one per URL scheme."""

STORES = {
    "memory": "mergesearch.store.memory:MemoryStore",
    "sqlite": "mergesearch.store.sql:SqlStore",
}
