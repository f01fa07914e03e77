"""Trains the factor network and judges it."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from labelers.runtime.device import Device
from training.factor_net.augmentation import Augmentation
from training.factor_net.calibration import find_threshold, fit_temperature
from training.factor_net.config import Head, Imbalance
from training.factor_net.loss import class_weights, head_loss
from training.factor_net.metrics import balancing_weights, measure_head
from training.factor_net.network import CalibratedNet, FactorNet, normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from training.factor_net.config import FactorNetConfig
    from training.factor_net.crops import Crops
    from training.factor_net.metrics import HeadMetrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNet:
    """What training gives.

    Attributes:
        model: in evaluation mode, on the device of training.
        thresholds: one a head, the logit that became the probability 0.5; found on the validation faces.
        temperatures: one a head, fitted on the validation faces.
        validation: metrics of every head on the validation faces.
        before: balanced accuracy of every head at the logit 0, on which the validation faces had no influence.
        seconds: how long the training took, reading not counted.
    """

    model: CalibratedNet
    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]
    validation: Mapping[Head, HeadMetrics]
    before: Mapping[Head, float]
    seconds: float


def train(training: Crops, validation: Crops, config: FactorNetConfig) -> TrainedNet:
    """Train on one part and measure on the other.

    The weights of the last step are taken: the validation faces choose nothing but each head's threshold, the logit
    that becomes the probability 0.5, and its temperature. Neither changes the AUC.

    Raises:
        ValueError: if there is no such device.
        FloatingPointError: if the loss is not finite.
    """
    check_device(config.device)
    started = time.monotonic()
    with _reproducible(config):
        network = _fit(training, config)
        logits = _logits(network, validation.images, config)  # [N, 3]
        seconds = time.monotonic() - started
        columns = list(zip(logits.T, validation.truth.T, strict=True))
        thresholds = tuple(find_threshold(values, truth) for values, truth in columns)
        temperatures = tuple(
            fit_temperature(values - threshold, truth, _prior(truth, config))
            for (values, truth), threshold in zip(columns, thresholds, strict=True)
        )
        model = CalibratedNet(network, thresholds, temperatures).to(config.device).eval()
    probabilities = expit((logits - thresholds) / temperatures)
    metrics = {head: measure_head(probabilities[:, i], validation.truth[:, i]) for i, head in enumerate(Head)}
    before = {
        head: measure_head(expit(values), truth).balanced_accuracy
        for head, (values, truth) in zip(Head, columns, strict=True)
    }
    for head, threshold in zip(Head, thresholds, strict=True):
        found, was = metrics[head], float(expit(threshold))
        log.info(
            "%s: threshold %.3f, now 0.5: balanced accuracy %.4f (at 0.5 before: %.4f), AUC %.4f",
            *(head, was, found.balanced_accuracy, before[head], found.auc),
        )
    return TrainedNet(
        model=model,
        thresholds=thresholds,
        temperatures=temperatures,
        validation=metrics,
        before=before,
        seconds=seconds,
    )


def check_device(device: Device) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: if PyTorch cannot use a GPU that is asked for.
    """
    if device is Device.CUDA and not torch.cuda.is_available():
        raise ValueError("PyTorch finds no GPU: install a driver that fits torch's CUDA, or choose the device cpu")


@contextlib.contextmanager
def _reproducible(config: FactorNetConfig) -> Iterator[None]:
    """Fix seed, threads and algorithms, and put back what is global."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    devices = [torch.cuda.current_device()] if config.device is Device.CUDA else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)


def _fit(training: Crops, config: FactorNetConfig) -> FactorNet:
    """The network after the last step."""
    device = str(config.device)
    network = FactorNet(config.widths, config.dropout).to(device)
    network.to(memory_format=torch.channels_last)
    steps = math.ceil(len(training) / config.batch)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: rate_at(step, steps * config.epochs, config.warmup)
    )
    augment = Augmentation(config.augmentation, config.seed + 1, device)
    weights = class_weights(training.truth).to(device)
    network.train()
    for epoch in range(config.epochs):
        total = 0.0
        for images, truth in _batches(training, config, epoch):
            changed = augment(normalise(images)).contiguous(memory_format=torch.channels_last)
            loss = head_loss(network(changed), truth, weights, config.imbalance, config.focal_gamma)
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"the loss is not finite in epoch {epoch + 1}: lower the learning rate")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch's own is not annotated
            optimiser.step()
            schedule.step()
            total += loss.item()
        log.info("epoch %d of %d: loss %.4f", epoch + 1, config.epochs, total / steps)
    network.eval()
    return network


def rate_at(step: int, steps: int, warmup: float) -> float:
    """The share of the highest learning rate: rising evenly, then along half a cosine to 0."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))


def _batches(crops: Crops, config: FactorNetConfig, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures uint8 [B, 3, H, W] and truth float32 [B, 3] in an order of this epoch's own; none has one face."""
    order = np.random.default_rng((config.seed, epoch)).permutation(len(crops))
    parts = np.array_split(order, math.ceil(len(order) / config.batch))
    for rows in parts:
        images = torch.from_numpy(crops.images[rows]).to(config.device).permute(0, 3, 1, 2)
        yield images, torch.from_numpy(crops.truth[rows]).to(config.device).float()


def _logits(network: FactorNet, images: NDArray[np.uint8], config: FactorNetConfig) -> NDArray[np.float64]:
    """Logits [N, 3] of faces uint8 [N, 112, 112, 3], unchanged."""
    results = []
    with torch.inference_mode():
        for start in range(0, len(images), 4 * config.batch):
            chunk = torch.from_numpy(images[start : start + 4 * config.batch]).to(config.device)
            results.append(network(normalise(chunk.permute(0, 3, 1, 2))).cpu())
    return torch.cat(results).double().numpy()


def _prior(truth: NDArray[np.bool_], config: FactorNetConfig) -> NDArray[np.float64]:
    """Weights [N] that give the classes the shares that the loss gave them."""
    balanced = config.imbalance is Imbalance.CLASS_WEIGHTS
    return balancing_weights(truth) if balanced else np.ones(len(truth))
