"""Scores images with a trained model: where the images lie, which model it is, and the table that comes out."""
