"""From a study's results to a merged checkpoint: which candidate, its folder, its provenance, its card, its scores."""
