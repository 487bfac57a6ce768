"""The REST API under /api/v1, one file per subject; each has a `router`."""
