"""CLIB-FIQA's model: a CLIP image tower against the frozen embeddings of 360 prompts."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_manifests.tables.stages import QUALITY_CLASSES, Factor
from labelers.faces import SIDE
from training.clip.backbone import ClipConfig, build_clip, encode_prompts, find_clip_config, load_pretrained
from training.losses import ANCHORS
from training.prompts import FACTOR_SIZES, JOINT_SIZES, PROMPTS
from training.quality.config import MERGED_HIDDEN, ModelConfig, Prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

JOINT = len(PROMPTS)
"""Combinations of all factors with quality: 360."""

COMBINATIONS = math.prod(FACTOR_SIZES)
"""Combinations of the five factors: 72."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marginals:
    """Log-probabilities of quality and of every factor, each on its own (CLIB-FIQA section 3.2).

    Attributes:
        quality: [N, 5].
        blur: [N, 3].
        occlusion: [N, 2].
        pose: [N, 3].
        expression: [N, 2].
        lighting: [N, 2].
    """

    quality: Tensor
    blur: Tensor
    occlusion: Tensor
    pose: Tensor
    expression: Tensor
    lighting: Tensor

    def of(self, factor: Factor) -> Tensor:
        """The log-probabilities of one factor's classes."""
        found: Tensor = getattr(self, factor.value)
        return found


class QualityModel(nn.Module):
    """The image tower, the prompts' embeddings and the temperature; the text tower has done its part.

    Attributes:
        tower: what the image tower looks like.
        visual: the image tower, pixels to [N, K].
        text_features: float32 [360, K], of unit length; saved with the weights, never trained.
        logit_scale: logarithm of 1 / temperature (Eq. 3), trained.
    """

    text_features: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, tower: ClipConfig, visual: nn.Module, text_features: Tensor, logit_scale: Tensor) -> None:
        super().__init__()
        if text_features.shape != (JOINT, tower.embed_dim):
            raise ValueError(f"text features must be {[JOINT, tower.embed_dim]}, not {list(text_features.shape)}")
        self.tower = tower
        self.visual = visual
        self.logit_scale = nn.Parameter(logit_scale.detach().reshape(()).float().clone())
        self.register_buffer("text_features", text_features.detach().float().clone())  # [360, K]
        self.register_buffer("mean", 255.0 * torch.tensor(tower.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(tower.std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, flip: Tensor | None = None) -> Tensor:
        """The joint distribution of all factors and quality (CLIB-FIQA Eq. 3).

        Args:
            images: uint8 [N, 112, 112, 3], RGB, aligned.
            flip: bool [N]; which images are mirrored left to right.

        Returns:
            Log-probabilities float32 [N, 360], in the order of `PROMPTS`, whatever autocast is on.

        Raises:
            ValueError: if the images are of another type or size.
        """
        features = self.visual(self.prepare(images, flip))  # [N, K]
        with _full_precision(features.device.type):
            directions = functional.normalize(features.float(), dim=-1)
            logits = self.logit_scale.exp() * (directions @ self.text_features.T)  # [N, 360]
            return functional.log_softmax(logits, dim=-1)

    def prepare(self, images: Tensor, flip: Tensor | None = None) -> Tensor:
        """What the tower sees: float32 [N, 3, S, S], mirrored, resized and normalised, in channels-last memory.

        Bilinear like PIL's: enlarging needs no filter, shrinking (a small tower) is filtered.
        """
        if images.dtype != torch.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(
                f"images must be uint8 [N, {SIDE}, {SIDE}, 3], not {images.dtype} {list(images.shape)}: align the faces"
            )
        pixels = images.permute(0, 3, 1, 2)  # [N, 3, 112, 112]
        if flip is not None:
            pixels = torch.where(flip[:, None, None, None], pixels.flip(-1), pixels)
        pixels = pixels.float()
        size = self.tower.image_size
        if size != SIDE:
            pixels = functional.interpolate(
                pixels, (size, size), mode="bilinear", align_corners=False, antialias=size < SIDE
            )
        return (pixels - self.mean) / self.std


def _full_precision(device: str) -> contextlib.AbstractContextManager[object]:
    """Autocast off where it is on: similarities over a small temperature need all their digits."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


class MergedFactors(nn.Module):
    """The network that tells quality from the factors alone (CLIB-FIQA section 3.3).

    Attributes:
        hidden: widths of its hidden layers.
    """

    def __init__(self, hidden: Sequence[int] = MERGED_HIDDEN) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        widths = (COMBINATIONS, *hidden)
        layers: list[nn.Module] = []
        for inside, outside in zip(widths, hidden, strict=False):
            layers += [nn.Linear(inside, outside), nn.PReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], len(QUALITY_CLASSES)))

    def forward(self, p_factors: Tensor) -> Tensor:
        """Tell the quality that the factors justify.

        Args:
            p_factors: [N, 72], probabilities of every combination of factors (`log_factors(...).exp()`).

        Returns:
            float32 [N, 5], probabilities of the levels of quality.
        """
        return functional.softmax(self.layers(p_factors).float(), dim=-1)


def log_marginals(log_joint: Tensor) -> Marginals:
    """Sum the joint distribution over everything but quality, and but each factor, in log space.

    Args:
        log_joint: [N, 360].
    """
    axes = log_joint.reshape(-1, *JOINT_SIZES)  # [N, 3, 2, 3, 2, 2, 5]
    names = [*(factor.value for factor in Factor), "quality"]
    kept = {name: axis + 1 for axis, name in enumerate(names)}
    every = set(kept.values())
    return Marginals(**{name: axes.logsumexp(sorted(every - {axis})) for name, axis in kept.items()})


def log_factors(log_joint: Tensor) -> Tensor:
    """Log-probabilities of every combination of factors: [N, 360] -> [N, 72]."""
    return log_joint.reshape(-1, COMBINATIONS, len(QUALITY_CLASSES)).logsumexp(-1)


def quality_score(p_quality: Tensor) -> Tensor:
    """The quality that a distribution stands for (CLIB-FIQA Eq. 2): [N, 5] -> [N], within [0.1, 0.9]."""
    return p_quality @ torch.tensor(ANCHORS, dtype=p_quality.dtype, device=p_quality.device)


def build_model(config: ModelConfig, seed: int) -> QualityModel:
    """Build the model, with the prompts encoded by the text tower, which is then dropped.

    Args:
        config: which tower and weights.
        seed: of random weights; the same seed gives the same weights, and global random state stays as it was.

    Raises:
        ClipConfigError: if there is no such tower, or if it does not fit its weights.
        WeightsError: if a file of weights cannot be read or does not fit.
    """
    tower = find_clip_config(config.tower)
    clip = build_clip(tower, seed)
    if config.pretrained:
        tower = load_pretrained(clip, tower, config.pretrained)
    return from_clip(clip, tower, config.prompts)


def from_clip(clip: nn.Module, tower: ClipConfig, prompts: Prompts = Prompts.ENCODED) -> QualityModel:
    """The model of a CLIP whose weights are in place; in training mode."""
    features = encode_prompts(clip, tower)
    if prompts is Prompts.SPREAD:
        features = spread(features)
    model = QualityModel(tower, clip.get_submodule("visual"), features, clip.get_parameter("logit_scale"))
    return model.train()


def spread(features: Tensor) -> Tensor:
    """Keep of the prompts' embeddings what each word contributes, and give all contributions the same size.

    A prompt becomes the sum of what its six words contribute (the mean over all prompts that have the word, less the
    mean over all prompts); these contributions are turned and stretched until words of different factors are at right
    angles and all words of a factor are equally far apart.

    Args:
        features: [360, K], K at least 11.

    Returns:
        [360, K], of unit length.
    """
    words = torch.cartesian_prod(*(torch.arange(size) for size in JOINT_SIZES))  # [360, 6]
    has = [functional.one_hot(words[:, place], size) for place, size in enumerate(JOINT_SIZES)]
    design = torch.cat(has, dim=1).double()  # [360, 17]
    design = design - design.mean(0)
    contributions = design @ torch.linalg.lstsq(design, features.double(), driver="gelsd").solution  # [360, K]
    left, _, right = torch.linalg.svd(contributions, full_matrices=False)
    kept = sum(size - 1 for size in JOINT_SIZES)
    return functional.normalize(left[:, :kept] @ right[:kept], dim=-1).to(features.dtype)


def build_merged(config: ModelConfig, seed: int) -> MergedFactors:
    """The merged-factor network with random weights from the seed; global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MergedFactors(config.merged_hidden)
