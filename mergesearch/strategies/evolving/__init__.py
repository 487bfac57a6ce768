"""Populations and distributions: what the evolutionary strategies share."""
