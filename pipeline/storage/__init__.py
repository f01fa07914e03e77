"""What lies on disk: tables in shards, their fingerprints and receipts, and the images that are read."""
