"""Scorers, one per file."""

SCORERS = {
    "image_classification": "mergesearch.scorers.image_classification:ImageClassification",
    "text_classification": "mergesearch.scorers.text_classification:TextClassification",
}
