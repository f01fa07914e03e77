"""CLIP's image and text towers: configurations, and how they are built."""
