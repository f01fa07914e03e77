"""The WIDER FACE classifier: one small network that tells occlusion, expression and lighting of an aligned face."""
