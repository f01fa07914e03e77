"""Columns, types and units of every table that is written. No table is computed here."""
