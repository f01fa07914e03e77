"""How networks run: ONNX Runtime, devices, precision, threads. Nothing here knows what a network is for."""
