"""Everything that decides a training of the quality model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from data_manifests.recipes import Recipe
from data_manifests.tables.stages import Factor
from training.quality.model import ModelConfig
from training.trainer.cores import share_of_cores

if TYPE_CHECKING:
    from data_manifests.folds import Fold


class Score(StrEnum):
    """Which distribution over the five levels the score is taken from."""

    QUALITY = "quality"
    """P(h_q | x), the marginal of the joint distribution."""
    MERGED = "merged"
    """What the merged-factor network makes of the factors: M-F in CLIB-FIQA's Table 4 and Figure 5."""


class Device(StrEnum):
    """Where the model is trained."""

    CPU = "cpu"
    CUDA = "cuda"


class Compilation(StrEnum):
    """Whether torch.compile compiles the model, and its mode."""

    NO = "no"
    DEFAULT = "default"
    REDUCE_OVERHEAD = "reduce-overhead"
    """By CUDA graphs: for batches so small that a GPU waits for the processor to start its kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Whose rule decides, one by one, where the paper and its released code differ.

    Attributes:
        mapping: how a quality becomes a distribution (Eq. 1).
        distance: the distance of quality fitting (Eq. 4).
        focal: the loss of the factors (Eq. 5, 6).
        weighting: how the terms are weighed (Eq. 7), fixed or by dynamic weight averaging.
        divergence: the divergence behind the confidence (Eq. 9).
        schedule: how the learning rate falls.
    """

    mapping: Recipe = Recipe.PAPER
    distance: Recipe = Recipe.PAPER
    focal: Recipe = Recipe.PAPER
    weighting: Recipe = Recipe.PAPER
    divergence: Recipe = Recipe.PAPER
    schedule: Recipe = Recipe.PAPER

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """All rules of one recipe."""
        return cls(**dict.fromkeys((rule.name for rule in fields(cls)), recipe))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is learned; every row of CLIB-FIQA's Table 4 is one setting.

    Attributes:
        quality: whether quality is fitted (NQF).
        factors: the factors that are learned.
        score: what the score is taken from.
        confidence: whether the second phase's targets are calibrated by the confidence of the first (CC).
    """

    quality: bool = True
    factors: tuple[Factor, ...] = tuple(Factor)
    score: Score = Score.QUALITY
    confidence: bool = True

    def __post_init__(self) -> None:
        if len(set(self.factors)) != len(self.factors):
            raise ValueError(f"a factor stands twice in {', '.join(self.factors)}")
        if not self.quality and not self.factors:
            raise ValueError("nothing would be learned: fit the quality, or name a factor")
        if self.confidence and not (self.quality and self.factors):
            raise ValueError("the confidence compares quality with factors: learn both, or switch the confidence off")
        if self.score is Score.MERGED and not self.factors:
            raise ValueError("a score from the merged factors needs factors to be learned")
        if self.score is Score.QUALITY and not self.quality:
            raise ValueError("a score from the quality needs the quality to be fitted: take it from the merged factors")

    @property
    def merged(self) -> bool:
        """Whether the merged-factor network is needed."""
        return self.confidence or self.score is Score.MERGED


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Settings of one training; the defaults are CLIB-FIQA's section 4.1, or its released code's where that is silent.

    Attributes:
        model: the tower and the weights that it starts from.
        rules: paper or released code.
        terms: what is learned.
        held_out: the people who are not learned from, on whom the model is measured; None: all are learned from.
        epochs_one: passes over the images in the first phase.
        epochs_two: passes in the second, after the confidence is known.
        batch: images in a step, over all processes.
        accumulation: parts in which a process takes its share of a step, where memory is short.
        learning_rate: of image tower and temperature (released code).
        merged_learning_rate: of the merged-factor network (released code).
        warm_up: share of all steps in which the learning rate first rises to its highest; for random weights.
        weight_decay: of AdamW.
        clip: largest norm of the gradient, of tower and merged-factor network each (released code).
        balance: weight of quality fitting, lambda in Eq. 7.
        gamma: focusing parameter, Eq. 5.
        beta: shape of the soft mapping and of the confidence, Eq. 1 and 8.
        seed: of random weights, order and mirroring.
        device: where it is trained.
        bf16: whether the tower computes in bfloat16; the weights stay float32.
        channels_last: whether the tower's weights lie so that convolutions read them fastest.
        compiled: whether and how torch.compile compiles the model.
        sync_batchnorm: whether batch statistics are taken over all GPUs.
        threads: that decode images, in every process; as many as it has cores, but not more than 8.
        checkpoint_every: steps between two checkpoints.
        keep: checkpoints that are kept.
        log_every: steps between two points of every curve.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    rules: Rules = field(default_factory=Rules)
    terms: Terms = field(default_factory=Terms)
    held_out: Fold | None = None
    epochs_one: int = 5
    epochs_two: int = 20
    batch: int = 256
    accumulation: int = 1
    learning_rate: float = 1e-5
    merged_learning_rate: float = 1e-3
    warm_up: float = 0.0
    weight_decay: float = 1e-3
    clip: float = 5.0
    balance: float = 10.0
    gamma: float = 2.0
    beta: float = 32.0
    seed: int = 323
    device: Device = Device.CPU
    bf16: bool = False
    channels_last: bool = True
    compiled: Compilation = Compilation.NO
    sync_batchnorm: bool = True
    threads: int = field(default_factory=share_of_cores)
    checkpoint_every: int = 1000
    keep: int = 3
    log_every: int = 20

    def __post_init__(self) -> None:
        counts = ("epochs_one", "batch", "accumulation", "threads", "checkpoint_every", "keep", "log_every")
        if wrong := [name for name in counts if getattr(self, name) < 1]:
            raise ValueError(f"{' and '.join(wrong)} must be at least 1")
        positive = ("learning_rate", "merged_learning_rate", "clip", "balance", "beta")
        if wrong := [name for name in positive if not getattr(self, name) > 0]:
            raise ValueError(f"{' and '.join(wrong)} must be above 0")
        not_negative = ("epochs_two", "weight_decay", "gamma", "seed")
        if wrong := [name for name in not_negative if not getattr(self, name) >= 0]:
            raise ValueError(f"{' and '.join(wrong)} must be 0 or more")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up is a share of all steps, from 0 to below 1, not {self.warm_up}")
        if self.warm_up and self.rules.schedule is Recipe.RELEASED:
            raise ValueError("the released schedule has no warm_up: leave it out, or take the rule schedule=paper")
        if self.compiled is Compilation.REDUCE_OVERHEAD and self.accumulation > 1:
            # A CUDA graph writes its gradients where it wrote those of the part before.
            raise ValueError("reduce-overhead takes a share in one part: set accumulation to 1, or compiled to default")

    @property
    def epochs(self) -> int:
        """Passes over the images in all."""
        return self.epochs_one + self.epochs_two

    @property
    def calibrated(self) -> bool:
        """Whether there is a second phase with confidences."""
        return self.terms.confidence and self.epochs_two > 0

    def describe(self) -> dict[str, Any]:
        """All settings as plain values."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def fingerprint(self, content: str, images: int) -> str:
        """What names a run: 12 hexadecimal digits over the settings that decide the weights, and the labels.

        Device, threads, memory layout and what is kept do not enter: a run may go on elsewhere.

        Args:
            content: of the labels, `Labels.content`.
            images: how many are learned from.
        """
        free = {"device", "threads", "channels_last", "compiled", "checkpoint_every", "keep", "log_every"}
        settings = {name: value for name, value in self.describe().items() if name not in free}
        text = json.dumps({"settings": settings, "labels": content, "images": images}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
