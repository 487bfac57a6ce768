"""Worker pools, one per file."""

POOLS = {
    "inline": "mergesearch.pool.inline:InlinePool",
    "ray": "mergesearch.pool.ray:RayPool",
    "external": "mergesearch.pool.external:ExternalPool",
}
