"""How sharp a face is, from its pixels: CPBD, and the Sobel score of the released code."""

from labelers.blur.scores import cpbd, sobel

__all__ = ["cpbd", "sobel"]
