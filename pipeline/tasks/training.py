"""Training as tasks: each runs in a child process, so that CUDA never meets a fork and no task loads torch."""
