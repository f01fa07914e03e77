"""Everything that decides a training of the quality model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator

from data_manifests.folds import MaybeFold  # noqa: TC001 - pydantic reads it when the program runs
from data_manifests.recipes import Recipe
from data_manifests.tables.stages import Factor
from labelers.runtime.device import Device
from training.trainer.compilation import Compilation
from training.trainer.cores import share_of_cores

if TYPE_CHECKING:
    from collections.abc import Iterable


MERGED_HIDDEN = (72, 128, 64)
"""Hidden layers of the merged-factor network (CLIB-FIQA section 4.1: FC(72)-PReLU-FC(128)-PReLU-FC(64)-PReLU-FC(5))."""


class Prompts(StrEnum):
    """What stands for the prompts."""

    ENCODED = "encoded"
    """The text tower's embeddings as they are: what the paper does."""
    SPREAD = "spread"
    """What the words contribute to them, spread out evenly. A text tower of random weights embeds all prompts in nearly
    one direction, in which levels of quality cannot be told apart; it knows nothing of words that this could lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What decides the model before training.

    Attributes:
        tower: image tower, by open_clip's name, one of training/clip/configurations, or a backbone of TrainRecognition.
        pretrained: open_clip's tag of its weights, or a file, for a backbone also a recogniser of models.toml; none:
            random weights from the seed.
        prompts: embeddings of the prompts: encoded by the text tower, or spread apart, for random weights.
        merged_hidden: widths of the hidden layers of the merged-factor network.
    """

    tower: str = "RN50-quickgelu"
    pretrained: Annotated[str, BeforeValidator(lambda name: "" if name == "none" else name)] = "openai"
    prompts: Prompts = Prompts.ENCODED
    merged_hidden: tuple[int, ...] = MERGED_HIDDEN

    def __post_init__(self) -> None:
        if not self.merged_hidden or min(self.merged_hidden) < 1:
            raise ValueError(f"merged_hidden needs one positive width or more, not {self.merged_hidden}")


class Score(StrEnum):
    """Which distribution over the five levels the score is taken from."""

    QUALITY = "quality"
    """P(h_q | x), the marginal of the joint distribution."""
    MERGED = "merged"
    """What the merged-factor network makes of the factors: M-F in CLIB-FIQA's Table 4 and Figure 5."""


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


def _read_factors(given: str | Iterable[str]) -> tuple[Factor, ...]:
    """Factors in the order of the table; as a text they are joined by commas."""
    words = [word.strip() for word in given.split(",")] if isinstance(given, str) else list(given)
    named = [word for word in words if word not in {"", "none"}]
    if unknown := sorted(set(named) - set(Factor)):
        raise ValueError(f"no such factor: {', '.join(unknown)}; there are {', '.join(Factor)}")
    return tuple(factor for factor in Factor if factor in named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is learned; every row of CLIB-FIQA's Table 4 is one setting.

    Attributes:
        quality: fit the quality (NQF).
        factors: factors to learn, by commas, or none.
        score: distribution that the score is taken from: quality, or merged (M-F).
        confidence: calibrate the targets of the second phase by the confidence of the first (CC).
    """

    quality: bool = True
    factors: Annotated[tuple[Factor, ...], BeforeValidator(_read_factors)] = tuple(Factor)
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


FREE = frozenset({"device", "threads", "channels_last", "compiled", "checkpoint_every", "keep", "log_every"})
"""Settings that leave the weights as they are, but for their last bits: a run may go on with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Settings of one training; the defaults are CLIB-FIQA's section 4.1, or its released code's where that is silent.

    Attributes:
        model: the tower and the weights that it starts from.
        rules: paper or released code.
        terms: what is learned.
        held_out: leave out all images of one in N people, and measure the model on them: K/N, with K from 0 to N - 1.
        epochs_one: passes over the images in the first phase, before the confidence is known.
        epochs_two: passes in the second phase; 0: no second phase.
        batch: images in a step, over all processes.
        accumulation: parts into which a process divides its images of a step, where memory is short.
        learning_rate: learning rate of image tower and temperature (released code).
        merged_learning_rate: learning rate of the merged-factor network (released code).
        warm_up: fraction of all steps in which the learning rate first rises to its highest; for random weights.
        weight_decay: weight decay of AdamW.
        clip: largest norm of the gradient, of tower and merged-factor network each (released code).
        balance: weight of quality fitting (lambda, Eq. 7).
        gamma: focusing parameter (Eq. 5).
        beta: shape of the soft mapping and of the confidence (Eq. 1 and 8).
        seed: seed of random weights, order and mirroring.
        device: where it is trained.
        bf16: compute the tower in bfloat16, with weights in float32; left out: on a GPU.
        channels_last: keep the tower's weights in the layout that convolutions read fastest.
        compiled: mode of torch.compile: auto (default on a GPU for two million images or more), no, default, or
            reduce-overhead (small batches on a GPU); several GPUs need sync_batchnorm off to gain from it.
        sync_batchnorm: take batch statistics over all GPUs.
        threads: threads that decode images, in every process; left out: one for every core, at most 8.
        checkpoint_every: steps between two checkpoints.
        keep: checkpoints that are kept.
        log_every: steps between two points of every curve.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    rules: Rules = field(default_factory=Rules)
    terms: Terms = field(default_factory=Terms)
    held_out: MaybeFold = None
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
    compiled: Compilation = Compilation.AUTO
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

    def count_steps(self, epoch_steps: int) -> int:
        """Steps in all, with so many in a pass over the images."""
        return self.epochs * epoch_steps

    def count_images(self, images: int) -> int:
        """How many images are seen in all, each as often as it is seen, where there are so many."""
        return self.epochs * images

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
        settings = {name: value for name, value in self.describe().items() if name not in FREE}
        text = json.dumps({"settings": settings, "labels": content, "images": images}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
