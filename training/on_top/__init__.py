"""CR-FIQA on top: the certainty ratio as a linear function of a recogniser's stored embeddings and norms."""
