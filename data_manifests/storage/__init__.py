"""File formats of any content: files that are whole or absent, Parquet, TOML, pickles read as data."""
