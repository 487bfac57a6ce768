"""Runs a study: `plan.py` decides, `loop.py` acts."""
