"""Everything that decides a training of CR-FIQA."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator

from data_manifests.folds import Fold
from labelers.runtime.device import Device
from training.backbones.names import Backbone
from training.trainer.compilation import Compilation
from training.trainer.cores import share_of_cores


class Margin(StrEnum):
    """How an image's logit of its own class is made harder."""

    ARCFACE = "arcface"
    COSFACE = "cosface"


class Target(StrEnum):
    """What the regression layer learns."""

    CERTAINTY_RATIO = "certainty_ratio"
    """CCS / (NNCCS + 1), CR-FIQA Eq. 4."""
    PLAIN_RATIO = "plain_ratio"
    """CCS / NNCCS, of CR-FIQA's released code."""
    CCS = "ccs"
    """CCS alone: CCS-FIQA, of CR-FIQA's ablation."""


class Centres(StrEnum):
    """Where the centres of the people begin."""

    RANDOM = "random"
    MEANS = "means"
    """At the means of their embeddings by the weights that the training starts from (Qi et al., CVPR 2018)."""


def _read_fold(given: object) -> object:
    """The people held out, who may be written as K/N."""
    return Fold.parse(given) if isinstance(given, str) else given


def _read_steps(given: object) -> object:
    """Numbers of steps; as a text they are joined by commas."""
    return tuple(word.strip() for word in given.split(",") if word.strip()) if isinstance(given, str) else given


SIZES = {Margin.ARCFACE: 0.5, Margin.COSFACE: 0.35}
"""m of each margin, where nothing else is asked for (ArcFace and CosFace)."""

LATER = {"sample_rate": 1.0, "centres": "random"}
"""Settings that came later, each with the value that a run without it has: such a run keeps its name."""

FREE = frozenset({"device", "threads", "channels_last", "compiled", "checkpoint_every", "keep", "log_every"})
"""Settings that leave the weights as they are, but for their last bits: a run may go on with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionConfig:
    """Settings of one training; the defaults are CR-FIQA(S)'s (section IV), or its code's where that is silent.

    Attributes:
        backbone: the network that makes the embedding.
        pretrained: what to start from: a backbone.pt of ArcFace's code, a checkpoint of CR-FIQA's, a recogniser in
            ONNX as InsightFace publishes them, or the name of one in models.toml; none: random weights from the seed.
        centres: where the centres of the people begin: random (released code), or means, of their embeddings by the
            weights to start from.
        margin: the margin of the softmax.
        margin_size: m of the margin; left out: 0.5 for arcface, 0.35 for cosface.
        scale: s of the logits.
        sample_rate: share of the people over whom a step's softmax is, those of its images and others by chance, above
            0 (Partial FC); 1: all.
        target: what the regression layer learns: certainty_ratio (Eq. 4), plain_ratio (released code), or ccs
            (CCS-FIQA).
        balance: weight of the regression (lambda, Eq. 6).
        threshold: where smooth L1 becomes a straight line (beta, Eq. 5; released code).
        dropout: fraction of an iresnet's last map that is dropped (released code).
        held_out: leave out all images of one in N people: K/N, with K from 0 to N - 1.
        least_images: leave out people of fewer images.
        steps: steps in all.
        drops: steps at which the learning rate is divided by ten, by commas.
        warm_up: steps in which the learning rate first rises.
        batch: images in a step, over all processes.
        accumulation: parts into which a process divides its images of a step, where memory is short.
        learning_rate: highest learning rate.
        momentum: of SGD.
        weight_decay: of SGD.
        clip: largest norm of the gradient of backbone and regression layer (released code).
        seed: seed of random weights, order and mirroring.
        device: where it is trained.
        bf16: compute the backbone in bfloat16, with weights in float32; left out: on a GPU.
        channels_last: keep the backbone's weights in the layout that convolutions read fastest.
        compiled: mode of torch.compile: auto (default on a GPU for two million images or more), no, default, or
            reduce-overhead (small batches on a GPU).
        threads: threads that decode images, in every process; left out: one for every core, at most 8.
        checkpoint_every: steps between two checkpoints.
        keep: checkpoints that are kept.
        log_every: steps between two points of every curve.
    """

    backbone: Backbone = Backbone.IRESNET50
    pretrained: Annotated[str, BeforeValidator(lambda name: "" if name == "none" else name)] = ""
    centres: Centres = Centres.RANDOM
    margin: Margin = Margin.ARCFACE
    margin_size: float | None = None
    scale: float = 64.0
    sample_rate: float = 1.0
    target: Target = Target.CERTAINTY_RATIO
    balance: float = 10.0
    threshold: float = 0.5
    dropout: float = 0.4
    held_out: Annotated[Fold | None, BeforeValidator(_read_fold)] = None
    least_images: int = 1
    steps: int = 32_000
    drops: Annotated[tuple[int, ...], BeforeValidator(_read_steps)] = (20_000, 28_000)
    warm_up: int = 0
    batch: int = 512
    accumulation: int = 1
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 5.0
    seed: int = 323
    device: Device = Device.CPU
    bf16: bool = False
    channels_last: bool = True
    compiled: Compilation = Compilation.AUTO
    threads: int = field(default_factory=share_of_cores)
    checkpoint_every: int = 1000
    keep: int = 3
    log_every: int = 20

    def __post_init__(self) -> None:
        numbers = ("least_images", "steps", "batch", "accumulation", "threads", "checkpoint_every", "keep", "log_every")
        for name in numbers:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("scale", "threshold", "learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be from 0 to 2147483647, not {self.seed}")
        if not 0 < self.sample_rate <= 1:
            raise ValueError(f"sample_rate must be above 0 and at most 1, not {self.sample_rate}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be within 0 and 1, not {self.dropout}")
        if self.margin_size is None:
            object.__setattr__(self, "margin_size", SIZES[self.margin])

    def count_steps(self, epoch_steps: int) -> int:  # noqa: ARG002 - this training is measured in steps, not in passes
        """Steps in all, with so many in a pass over the images."""
        return self.steps

    def count_images(self, images: int) -> int:  # noqa: ARG002 - likewise
        """How many images are seen in all, each as often as it is seen."""
        return self.steps * self.batch

    def describe(self) -> dict[str, Any]:
        """All settings as plain values."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def decide(self) -> dict[str, Any]:
        """The settings that decide the weights, as plain values, without those of `LATER` that have their old value."""
        every = self.describe().items()
        return {name: value for name, value in every if name not in FREE and (name, value) not in LATER.items()}

    def fingerprint(self, content: str) -> str:
        """What names a run: 12 hexadecimal digits over the settings that decide the weights, and what is learned from.

        Args:
            content: of the data, `PeopleImages.content`.
        """
        text = json.dumps({"settings": self.decide(), "data": content}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
