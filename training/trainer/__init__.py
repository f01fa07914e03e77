"""What all trainings share: loop, data loader, checkpoints, processes, run folder."""
