"""What gives a quality in an evaluation: networks, lists of scores, baselines."""
