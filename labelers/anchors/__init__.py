"""Class centres, and quality anchors from embeddings (CR-FIQA). labelers/recognition.py makes embeddings."""

from labelers.anchors.similarities import class_similarities, leave_one_out_similarities

__all__ = ["class_similarities", "leave_one_out_similarities"]
