"""The page of a labelled data set: what the labels hold, as numbers, pictures and faces."""
