"""Pure measures of face images: arrays in, named columns out.

import labelers

frame = labelers.label(images)           # uint8 [N, 112, 112, 3] RGB, or paths of aligned faces
faces = labelers.align("group.jpg")      # every face of a photo
"""

from typing import TYPE_CHECKING, Any

import data_manifests as data_manifests  # sees to it that no library reports its use

if TYPE_CHECKING:
    from labelers.direct import AlignedFace as AlignedFace
    from labelers.direct import align as align
    from labelers.direct import label as label

_DIRECT = ("AlignedFace", "align", "label")


def __getattr__(name: str) -> Any:
    """Load what a notebook uses only where it is used: it needs the libraries of all networks."""
    if name in _DIRECT:
        from labelers import direct  # noqa: PLC0415

        return getattr(direct, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
