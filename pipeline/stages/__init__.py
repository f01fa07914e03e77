"""The work of every stage, without Luigi: from images or tables to a checked table."""
