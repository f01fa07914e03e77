"""Benchmarks as they are published: pair lists, templates. training/evaluation computes on them."""
