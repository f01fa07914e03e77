"""What trainings learn from: the columns of `labels` that they use, and the images where they lie. No network here."""
