"""Study stores, one per URL scheme."""

STORES = {
    "memory": "mergesearch.store.memory:MemoryStore",
    "sqlite": "mergesearch.store.sqlite:open_sqlite",
    "postgresql": "mergesearch.store.postgresql:open_postgresql",
}
