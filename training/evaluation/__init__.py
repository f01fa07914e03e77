"""Whether a quality foretells recognition errors: curves, areas and statistics over arrays and tables."""
