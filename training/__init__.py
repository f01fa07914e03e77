"""Training, scoring and evaluation in PyTorch; nothing here knows how the labels were made."""
