"""Scorers, one per file."""

SCORERS = {
    "image_classification": "mergesearch.scorers.image_classification:ImageClassification",
    "stored_bytes": "mergesearch.scorers.stored_bytes:StoredBytes",
    "text_classification": "mergesearch.scorers.text_classification:TextClassification",
}
