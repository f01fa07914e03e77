"""Evaluation of qualities on benchmarks: what is planned, computed from the stages' tables, and written."""
