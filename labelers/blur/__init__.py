"""How sharp a face is, from its pixels: CPBD, the Sobel score of the released code, and the ratio of its edges."""

from labelers.blur.edge_ratio import edge_ratio
from labelers.blur.scores import cpbd, sobel

__all__ = ["cpbd", "edge_ratio", "sobel"]
