"""One file per schema version: `v0002_what_changed.py` with revision '0002' and down_revision '0001'.

A released file never changes. The new number also goes into SCHEMA_VERSION of `store/schema.py`, and a database saved
by the version before it into `tests/upgrade`.
"""
