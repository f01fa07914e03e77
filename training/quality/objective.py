"""What a step minimises: the terms of CLIB-FIQA Eq. 7, and the fit of the merged-factor network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data_manifests.recipes import Recipe
from data_manifests.tables.stages import Factor
from training.losses import dynamic_weights, emd, focal, soft_map
from training.quality.model import log_marginals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.quality.config import TrainingConfig

QUALITY, MERGED, TOTAL = "quality", "merged", "total"
"""Names of the terms that are no factor, and of the sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What is to be learned of N images, on the device.

    Attributes:
        quality: float32 [N], NaN where there is none.
        classes: int64 [N, 5], -1 where there is none.
        rho: float32 [N], the confidence; None in the first phase.
    """

    quality: Tensor
    classes: Tensor
    rho: Tensor | None

    def change(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same with every tensor changed."""
        rho = None if self.rho is None else change(self.rho)
        return Targets(quality=change(self.quality), classes=change(self.classes), rho=rho)


class Objective:
    """The terms that a configuration asks for.

    Every term is a mean over the images of the whole batch that have the label, and a part of the batch contributes its
    share of that mean: what the processes and the micro-batches contribute adds up to the same number however the batch
    is cut. The released focal loss is the exception: it is no mean over images, and is taken of each part by itself.

    Attributes:
        names: of the terms, T of them: quality, the factors, merged, as far as they are learned.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._factors = tuple(factor for factor in Factor if factor in config.terms.factors)
        quality = (QUALITY,) if config.terms.quality else ()
        merged = (MERGED,) if config.terms.merged else ()
        self._tasks = (*quality, *(factor.value for factor in self._factors))
        self.names = (*self._tasks, *merged)

    def count(self, quality: NDArray[np.float32], classes: NDArray[np.int8]) -> tuple[int, ...]:
        """For every term, how many of N images have its label.

        Args:
            quality: float32 [N].
            classes: int8 [N, 5].
        """
        with_quality = int(np.isfinite(quality).sum())
        found = dict.fromkeys((QUALITY, MERGED), with_quality)
        found |= {factor.value: int((classes[:, place] >= 0).sum()) for place, factor in enumerate(Factor)}
        return tuple(found[name] for name in self.names)

    def weights(self, history: Sequence[Sequence[float]]) -> tuple[float, ...]:
        """The weight of every term, T of them.

        Args:
            history: the T terms' means of every epoch so far; the fixed weights of the paper do not depend on it.
        """
        config, tasks = self._config, len(self._tasks)
        rest = [1.0] * (len(self.names) - tasks)
        balance = [config.balance if name == QUALITY else 1.0 for name in self._tasks]
        if config.rules.weighting is Recipe.RELEASED:
            # A weight that multiplies a task in every epoch leaves the ratios of its means as they are.
            means = torch.tensor([epoch[:tasks] for epoch in history], dtype=torch.float64).reshape(-1, tasks)
            dynamic = dynamic_weights(means).tolist()
            return (*(b * w for b, w in zip(balance, dynamic, strict=True)), *rest)
        # Eq. 5: the mean over the factors.
        share = 1.0 / max(1, len(self._factors))
        return (*(b if name == QUALITY else share for name, b in zip(self._tasks, balance, strict=True)), *rest)

    def shares(self, log_joint: Tensor, merged: Tensor | None, targets: Targets, counts: Sequence[int]) -> Tensor:
        """What these N images contribute to the mean of every term over the whole batch.

        Args:
            log_joint: [N, 360].
            merged: [N, 5], what the merged-factor network makes of the detached factors; None where it is not used.
            targets: of the N images.
            counts: for every term, how many images of the whole batch have its label.

        Returns:
            [T].
        """
        config, rules = self._config, self._config.rules
        marginals = log_marginals(log_joint)
        usable = targets.quality.isfinite()
        means = {}
        if config.terms.quality:
            wanted = soft_map(targets.quality, config.beta, targets.rho, rules.mapping)  # [N, 5]
            means[QUALITY] = emd(marginals.quality.exp(), wanted, rules.distance) * usable.sum()
        for factor in self._factors:
            classes = targets.classes[:, list(Factor).index(factor)]  # [N]
            mean = focal(marginals.of(factor), classes, config.gamma, rules.focal)
            means[factor.value] = mean * (classes >= 0).sum()
        if merged is not None:
            # The network learns what quality the factors stand for, so its target is not calibrated.
            wanted = soft_map(targets.quality, config.beta, None, rules.mapping)
            means[MERGED] = emd(merged, wanted, rules.distance) * usable.sum()
        return torch.stack([means[name] / max(1, n) for name, n in zip(self.names, counts, strict=True)])
