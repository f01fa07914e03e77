"""The report of an evaluation: one HTML page and one Markdown text, both made from its tables."""
