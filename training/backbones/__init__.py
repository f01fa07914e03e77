"""The networks from faces to embeddings, and the weights that they start from."""
