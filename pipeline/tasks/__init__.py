"""Luigi tasks, thin: parameters, what is required, and one call of a function that knows nothing of Luigi."""
