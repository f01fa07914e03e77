"""Head pose in degrees, by MediaPipe's face landmarker or by a network."""
