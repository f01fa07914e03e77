"""From photos to aligned crops, for AlignFaces. labelers/detection.py finds the faces."""
