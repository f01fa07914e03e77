"""The stages that read pixels. Whatever is named here has a stage, a Luigi task, and one that publishes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelStage:
    """A labeler as a stage. Its table and its version have the same name; its Luigi tasks are named after it.

    Attributes:
        name: of the stage, such as `blur`; `Blur` then makes it, and `BlurAll` publishes it.
        labeler: `module:class` of a labeler without weights; the process that computes imports it.
        settings: the fields of Settings that change the output; the labeler is made with them. They are left out
            of the fingerprint where they are false, as they were before there was such a setting.
        role: for a labeler that is a network, instead of `labeler`: which of the run's networks it is.
    """

    name: str
    labeler: str = ""
    settings: tuple[str, ...] = ()
    role: str = ""


PIXEL_STAGES = (
    PixelStage(name="blur", labeler="labelers.blur.scores:BlurLabeler", settings=("edges", "blocks", "edge_ratio")),
    PixelStage(name="pose", role="pose"),
    PixelStage(name="factors", role="factors"),
    PixelStage(name="embeddings", role="recognition", settings=("flip",)),
)

CARRIED = ("blur", "pose", "factors", "embeddings", "anchors")
"""The stages whose measures and causes stand in the labels, in their order."""
