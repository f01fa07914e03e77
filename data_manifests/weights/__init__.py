"""Networks by name, and their weight files: found, checked, fetched. labelers/runtime runs them."""
