"""What decides how the factor network is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from labelers.runtime.device import Device

LEVEL = 127.5
"""Mean and deviation of the network's input, in levels of 0 to 255: it sees values from -1 to 1."""


class Head(StrEnum):
    """The network's outputs in their order, named as the columns of the `factors` table."""

    OBSTRUCTED = "p_obstructed"
    EXAGGERATED = "p_exaggerated"
    EXTREME_LIGHTING = "p_extreme_lighting"


class Imbalance(StrEnum):
    """How the rare class of an attribute is kept from being ignored."""

    CLASS_WEIGHTS = "class_weights"
    """Both classes of a head weigh the same; 0.5 is then where they are equally likely if equally common."""

    FOCAL = "focal"
    """What is already told well weighs less (Lin et al. 2017, Eq. 4); probabilities follow the data's own shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationConfig:
    """Random changes of a training face that keep its attributes. A value of 0 switches one off.

    They have to cover the way from a face box to the ArcFace template, for faces whose landmarks are not found.

    Attributes:
        scale: the face becomes larger or smaller by up to this share.
        shift: along each axis, share of the side.
        rotation_deg: either way.
        contrast: by up to this share around the picture's mean.
        brightness: share of the whole range, kept small: more of it would be extreme lighting.
        colour: gain of each channel by up to this share.
        soften: share of the faces that are shrunk and enlarged again, since aligned faces may lack detail.
        noise: largest standard deviation, share of the whole range.
    """

    scale: float = 0.15
    shift: float = 0.08
    rotation_deg: float = 12.0
    contrast: float = 0.1
    brightness: float = 0.03
    colour: float = 0.05
    soften: float = 0.2
    noise: float = 0.015


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorNetConfig:
    """Everything that decides the weights, besides the data.

    Attributes:
        align: whether faces are aligned to the ArcFace template, as those are that are labelled. Without it each is
            a square around its box.
        margin: added on every side of a face's box, share of its longer side, where faces are not aligned.
        smallest_px: boxes whose longer side is shorter are left out: they do not show what is asked.
        widths: channels after the stem, and of every residual block.
        dropout: of the pooled features.
        epochs: passes over the training faces.
        batch: faces in a step.
        learning_rate: of AdamW, at its highest.
        weight_decay: of AdamW.
        warmup: share of the steps in which the learning rate rises, before it falls along a cosine.
        imbalance: how rare classes are weighed.
        focal_gamma: the exponent where `imbalance` is focal; 2 is Lin et al.'s choice.
        augmentation: random changes.
        seed: of the weights, the order and the random changes.
        device: where it is trained.
        threads: processor threads; sums, and with them the last bits of the weights, depend on it.
    """

    align: bool = True
    margin: float = 0.05
    smallest_px: int = 20
    widths: tuple[int, ...] = (32, 64, 128)
    dropout: float = 0.1
    epochs: int = 60
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 2e-2
    warmup: float = 0.05
    imbalance: Imbalance = Imbalance.CLASS_WEIGHTS
    focal_gamma: float = 2.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    seed: int = 323
    device: Device = Device.CPU
    threads: int = 2

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.threads, self.smallest_px) < 1:
            raise ValueError("epochs, batch, threads and smallest_px must be at least 1")
        if not (self.learning_rate > 0 and 0 <= self.warmup < 1 and 0 <= self.dropout < 1):
            raise ValueError("the learning rate must be positive, warmup and dropout 0 or more and under 1")
        if len(self.widths) < 2:
            raise ValueError(f"the network needs at least two widths, not {self.widths}")
