"""Training, scoring and evaluation in PyTorch; nothing here knows how the labels were made.

import training

model = training.load("workspace/sample/quality_model/current")
frame = model.score(images)      # uint8 [N, 112, 112, 3] RGB, or paths of aligned faces
"""

from typing import TYPE_CHECKING, Any

import data_manifests as data_manifests  # sees to it that no library reports its use

if TYPE_CHECKING:
    from training.direct import Model as Model
    from training.direct import load as load

_DIRECT = ("Model", "load")


def __getattr__(name: str) -> Any:
    """Load what a notebook uses only where it is used: it needs PyTorch."""
    if name in _DIRECT:
        from training import direct  # noqa: PLC0415

        return getattr(direct, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
