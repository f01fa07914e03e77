"""CLIB-FIQA's released training loop re-enacted, as the peer that our training is compared with.

What is re-enacted, because it decides the speed:

- In every step the text tower encodes all 360 prompts. Its blocks, projection and positions are frozen, but its token
  embedding and its last layer norm stay trainable, so the gradient passes backward through the whole text tower too.
- Images are decoded by PIL, mirrored, resized to the tower's size, made float and normalised in up to 12 processes,
  and travel to the device as float32.
- On a GPU the weights of convolutions and linear layers are float16; they become float32 for AdamW's step and float16
  again behind it. On a processor all is float32. Nothing is channels-last, AdamW is not fused.
- Eight losses are read back in every step, and the loss is asked whether it is NaN.

What is kinder than the original: images come from a .rec file instead of one file each, worker processes are started
once instead of once an epoch, and one backward pass serves both networks.
"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from benchmarks.speed_probe import UntilStopped
from data_manifests.recipes import Recipe
from training.clip.backbone import ClipConfig, find_clip_config, import_open_clip
from training.prompts import tokenize_prompts
from training.quality.config import Rules, Terms, TrainingConfig
from training.quality.model import JOINT, build_merged, log_factors
from training.quality.objective import Objective, Targets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.dataset.training_set import TrainingSet

WORKERS = 12
"""Processes of the released code's DataLoader."""

_WAITING = 2
"""Batches that wait for each process of a DataLoader; its default."""

_ENDLESS = 1 << 40


class ReleasedFaces(Dataset[tuple[Tensor, float, Tensor]]):
    """The images of a training set, prepared as the released code does."""

    def __init__(self, data: TrainingSet, tower: ClipConfig) -> None:
        self._data = data
        self._transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.Resize([tower.image_size, tower.image_size]),
                transforms.ToTensor(),
                transforms.Normalize(tower.mean, tower.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, row: int) -> tuple[Tensor, float, Tensor]:
        """Pixels float32 [3, S, S], quality, classes int64 [5]."""
        image = Image.open(io.BytesIO(self._data.images.read(row))).convert("RGB")
        classes = torch.from_numpy(self._data.classes[row]).long()
        return self._transform(image), float(self._data.quality[row]), classes


def count_workers(tower: ClipConfig, batch: int) -> int:
    """Processes that decode: as many as released, as there are cores, and as shared memory has room for batches of."""
    stored = 4 * 3 * tower.image_size**2 * batch
    shared = Path("/dev/shm")
    room = shutil.disk_usage(shared).free // (2 * _WAITING * stored) if shared.is_dir() else WORKERS
    return max(1, min(WORKERS, len(os.sched_getaffinity(0)), room))


class ReleasedLoader:
    """The released code's DataLoader over a training set, without an end; a context manager."""

    def __init__(self, data: TrainingSet, tower: ClipConfig, batch: int, *, pinned: bool) -> None:
        faces, workers = ReleasedFaces(data, tower), count_workers(tower, batch)
        self._ahead = workers * _WAITING
        self._rows = UntilStopped(RandomSampler(faces, replacement=True, num_samples=_ENDLESS))
        self._loader = DataLoader(
            faces,
            batch_size=batch,
            sampler=self._rows,
            num_workers=workers,
            prefetch_factor=_WAITING,
            pin_memory=pinned,
            multiprocessing_context="fork",  # what the released code gets on Linux, where it asks for nothing
        )
        self._batches: Iterator[Any] = iter(())

    def __enter__(self) -> Self:
        self._batches = iter(self._loader)
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.stopped = True
        for _ in self._batches:
            pass

    def drain(self) -> None:
        """Take what was made ahead while nobody asked, which would make the next batches look quick."""
        for _ in range(self._ahead):
            next(self._batches)

    def next(self) -> Any:
        """Pixels float32 [N, 3, S, S], quality [N], classes [N, 5]."""
        return next(self._batches)


class ReleasedLearner:
    """Both towers, the merged-factor network and their optimisers, as the released code steps them.

    Args:
        config: tower, seed and rates.
        device: where it is trained.
        half: whether the weights are float16 between two steps, as released for a GPU.
        prompts: that the text tower encodes in every step; 360 as released, fewer to see what they cost.
    """

    def __init__(self, config: TrainingConfig, device: torch.device, *, half: bool, prompts: int = JOINT) -> None:
        self._config = TrainingConfig(
            model=config.model, rules=Rules.of(Recipe.RELEASED), terms=Terms(), seed=config.seed, device=config.device
        )
        tower = find_clip_config(config.model.tower)
        self._device, self._half, self._objective = device, half, Objective(self._config)
        self._clip = _build_clip(tower, half=half).to(device).train()
        self._merged = build_merged(config.model, config.seed).to(device)
        tokens = tokenize_prompts(int(tower.text.get("context_length", 77)))  # [360, 77]
        self._tokens = tokens[:prompts].to(device)
        self._rest = torch.randn(JOINT - prompts, tower.embed_dim, device=device)
        self._optimisers = [
            torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=config.weight_decay)
            for net, rate in ((self._clip, config.learning_rate), (self._merged, config.merged_learning_rate))
        ]
        self._convert(half=half)

    def learn(self, batch: Any) -> int:
        """One step; returns the number of images.

        Args:
            batch: pixels float32 [N, 3, S, S], quality [N], classes [N, 5], on the processor.
        """
        pixels, quality, classes = (part.to(self._device) for part in batch)
        log_joint = self._compare(pixels)  # [N, 360]
        merged = self._merged(log_factors(log_joint.detach()).exp())
        targets = Targets(quality=quality.float(), classes=classes, rho=None)
        counts = self._objective.count(batch[1].numpy(), batch[2].numpy())
        losses = self._objective.shares(log_joint, merged, targets, counts)
        weights = self._objective.weights([])
        total = sum(weight * loss for weight, loss in zip(weights[:-1], losses[:-1], strict=True))
        _ = [loss.item() for loss in losses], total.item(), bool(total.isnan())
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        # The two share no weight, so one pass does what the released code does in two.
        (total + losses[-1]).backward()
        for net in (self._clip, self._merged):
            nn.utils.clip_grad_norm_(net.parameters(), self._config.clip)
        self._convert(half=False)
        for optimiser in self._optimisers:
            optimiser.step()
        self._convert(half=self._half)
        return len(pixels)

    def _compare(self, pixels: Tensor) -> Tensor:
        """Log-probabilities of all sentences, float32 [N, 360]."""
        kind = torch.float16 if self._half else torch.float32
        image = functional.normalize(self._clip.encode_image(pixels.to(kind)), dim=-1)  # [N, K]
        text = self._rest.to(kind)
        if len(self._tokens):
            text = torch.cat([self._clip.encode_text(self._tokens), text])  # [360, K]
        logits = self._clip.logit_scale.exp() * image @ functional.normalize(text, dim=-1).T
        return functional.log_softmax(logits.float(), dim=-1)

    def _convert(self, *, half: bool) -> None:
        """Weights and gradients to float32, or the large weights to float16."""
        if half:
            import_open_clip().convert_weights_to_lp(self._clip, torch.float16)
        elif self._half:
            for parameter in self._clip.parameters():
                parameter.data = parameter.data.float()
                if parameter.grad is not None:
                    parameter.grad.data = parameter.grad.data.float()


def _build_clip(tower: ClipConfig, *, half: bool) -> Any:
    """Both towers with random weights; frozen is what the released code freezes."""
    open_clip = import_open_clip()
    build = open_clip.CustomTextCLIP if tower.custom_text else open_clip.CLIP
    clip = build(
        tower.embed_dim,
        vision_cfg=dict(tower.vision),
        text_cfg=dict(tower.text),
        quick_gelu=tower.quick_gelu,
        cast_dtype=torch.float16 if half else None,  # decides which layer norm is built
    )
    for name, parameter in clip.named_parameters():
        # The positions of the image tower are frozen too, by the same words as those of the text tower. An image
        # tower that is a transformer would be frozen whole, which nobody can have meant: it stays trainable here.
        of_text = not name.startswith("visual.") and ("transformer" in name or "text_projection" in name)
        parameter.requires_grad_(not (of_text or "positional_embedding" in name))
    return clip
