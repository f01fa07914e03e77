"""Measurements: each script prints ratios against a ceiling or a peer in one run; none is a test."""
