"""What the method has to beat: a plain network that regresses the rank of the quality, on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import timm
import torch
from scipy.stats import rankdata
from torch import nn
from torch.nn import functional

from data_manifests.recipes import Recipe
from training.clip.backbone import CLIP_MEAN, CLIP_STD
from training.dataset.training_set import load_training_set
from training.trainer.loader import Loader
from training.trainer.sampler import Sampler
from training.trainer.schedule import rate_share

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from data_manifests.folds import Fold

NETWORK, EPOCHS, BATCH, RATE, DECAY, WARM_UP = "resnet10t", 10, 64, 1e-3, 0.05, 0.05
CLIP_NORM = 5.0


class Regressor(nn.Module):
    """Pixels to a number from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.network = timm.create_model(NETWORK, num_classes=1)
        self.register_buffer("mean", 255.0 * torch.tensor(CLIP_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor(CLIP_STD).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Uint8 [N, 112, 112, 3] to [N]."""
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        with torch.autocast("cpu", torch.bfloat16):
            found = self.network(pixels.contiguous(memory_format=torch.channels_last))
        return found.float()[:, 0].sigmoid()


def train_regressor(labels: Path, images: Path, held_out: Fold, file: Path, tell: Callable[[str], None]) -> Regressor:
    """Train it, or read it where it was trained before."""
    torch.manual_seed(0)
    model = Regressor().to(memory_format=torch.channels_last)
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    data = load_training_set(labels, images, factors=(), held_out=held_out)
    target = torch.from_numpy((rankdata(data.quality) - 0.5) / len(data)).float()
    sampler = Sampler(images=len(data), batch=BATCH, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    with Loader(data, threads=1) as loader:
        for number in range(EPOCHS):
            epoch = sampler.epoch(number)
            losses: list[float] = []
            rows = [epoch.batch(step) for step in range(sampler.steps)]
            for step, batch in enumerate(loader.batches(rows)):
                share = rate_share(
                    number * sampler.steps + step, steps=sampler.steps, epochs=EPOCHS, recipe=Recipe.PAPER,
                    warm_up=WARM_UP,
                )  # fmt: skip
                optimiser.param_groups[0]["lr"] = RATE * share
                flip = torch.from_numpy(epoch.flipped[batch.rows])[:, None, None, None]
                found = model(torch.where(flip, batch.images.flip(2), batch.images))
                loss = functional.mse_loss(found, target[batch.rows])
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
                optimiser.step()
                losses.append(loss.item())
            tell(f"regressor, epoch {number + 1} of {EPOCHS}: squared error {np.mean(losses):.4f}")
    torch.save(model.state_dict(), file)
    return model.eval()
