"""Whether a quality predicts recognition errors: curves, areas and statistics over arrays and tables."""
