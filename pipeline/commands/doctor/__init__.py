"""`doctor`: whether this machine is fit for a run, one file for each thing that is checked."""
