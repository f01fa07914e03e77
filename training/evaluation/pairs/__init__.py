"""Similarities of all pairs, thresholds, and which pairs a rejection keeps. Blocks, not lists of pairs."""
