"""CLIB-FIQA: its model, data and files. What all trainings share is in training/trainer."""
