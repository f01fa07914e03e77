"""The networks and their optimiser: one step of learning, and what a checkpoint has to hold of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.backbones.iresnet import IResNet
from training.backbones.mobilefacenet import MobileFaceNet
from training.backbones.networks import settle_backbone
from training.clip.backbone import ClipConfig, build_image_encoder
from training.clip.pooling import speed_up_pools
from training.quality.calibration import calibrate
from training.quality.model import QualityModel, build_merged, build_model
from training.quality.objective import MERGED, TOTAL, Objective, Targets
from training.quality.scorer import Scorer, TrainedNetworks, full_float32
from training.trainer.compilation import Compilation, compile_network
from training.trainer.loader import read_spread
from training.trainer.optimiser import load_state
from training.trainer.schedule import rate_share
from training.trainer.weights import load_strictly

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from training.quality.config import TrainingConfig
    from training.trainer.checkpoint import Checkpoint
    from training.trainer.feeding import MicroBatch
    from training.trainer.loader import Images
    from training.trainer.ranks import Ranks


class QualityLearner:
    """Model, merged-factor network and AdamW.

    Args:
        config: all settings.
        ranks: the processes.
        start: a checkpoint to go on from; None to begin.
        data: what it is to learn from: how much that is decides whether it is compiled, and its faces settle batch
            norms that a published file lacks.

    Attributes:
        networks: the networks, on the device.
        objective: the terms of the loss.
        source: SHA-256 of the weights after phase one, of which the confidences are made; empty before.
    """

    def __init__(
        self, config: TrainingConfig, ranks: Ranks, start: Checkpoint | None, data: Images | None = None
    ) -> None:
        self._config, self._ranks = config, ranks
        self.objective = Objective(config)
        self.source: str = "" if start is None else start.state["source"]
        self.networks = _build(config, start, data).to(ranks.device)
        if config.channels_last:
            self.networks.to(memory_format=torch.channels_last)
        self._parallel: nn.Module = self._wrap(0 if data is None else config.count_images(len(data)))
        groups = [(self.networks.model, config.learning_rate), (self.networks.merged, config.merged_learning_rate)]
        self._groups = [(list(net.parameters()), rate) for net, rate in groups if net is not None]
        self._optimiser = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in self._groups],
            weight_decay=config.weight_decay,
            fused=ranks.device.type == "cuda",
        )
        self.begin_epoch([])
        if start is not None:
            load_state(self._optimiser, start.state["optimiser"])

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the T terms."""
        return self.objective.names

    def begin_epoch(self, history: Sequence[Sequence[float]]) -> None:
        """Weigh the terms as the T means of every epoch so far ask for; all steps of an epoch weigh them alike."""
        self._weights = self.objective.weights(history)
        self._device_weights = torch.tensor(self._weights, device=self._ranks.device)

    def rate(self, step: int, steps: int) -> float:
        """The share of the highest learning rates at a step, from 0, with so many steps in an epoch."""
        config = self._config
        return rate_share(step, steps=steps, epochs=config.epochs, recipe=config.rules.schedule, warm_up=config.warm_up)

    def forward_backward(self, micro: MicroBatch[Targets]) -> Tensor:
        """Add a micro-batch to the gradient.

        Args:
            micro: what is learned from, on the device.

        Returns:
            The micro-batch's share of every term's mean, float64 [T], on the device.
        """
        with self._hold_gradients() if not micro.last else contextlib.nullcontext():
            with self._autocast():
                log_joint, merged = self._parallel(micro.images, micro.flipped)
            shares = self.objective.shares(log_joint, merged, micro.targets, micro.counts)
            # DistributedDataParallel takes the mean over the processes, whose shares are to be added.
            loss = self._ranks.world_size * (shares * self._device_weights).sum()
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch's own is not annotated
        return shares.detach().double()

    def optimizer_step(self, rate: float) -> None:
        """Move the weights, at this share of the highest learning rates."""
        for group, (parameters, highest) in zip(self._optimiser.param_groups, self._groups, strict=True):
            # Each by itself: the two networks share no gradient, so neither may shrink the other's.
            nn.utils.clip_grad_norm_(parameters, self._config.clip)
            group["lr"] = highest * rate
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def sync_buffers(self) -> None:
        """Give every process the batch statistics of the first, which are those that are saved."""
        self._ranks.copy_from_first(self.networks.buffers())

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> Tensor:
        """How far the factors justify the quality, in evaluation mode and without mirroring.

        Args:
            images: uint8 [n, 112, 112, 3], on the CPU.

        Returns:
            float32 [n, 2], divergence and confidence, on the CPU.
        """
        config, merged = self._config, self.networks.merged
        assert merged is not None
        with self._evaluating():
            with self._autocast():
                log_joint = self.networks.model(images.to(self._ranks.device, non_blocking=True))
            found = calibrate(log_joint, merged, config.beta, config.rules.divergence)
        return torch.stack([found.js, found.confidence], dim=1).cpu()

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """What the model says of images now: in evaluation mode and float32, without mirroring, as it is used later.

        Args:
            images: uint8 [n, 112, 112, 3], on the CPU.

        Returns:
            float32 [n, 18], the numbers of `training.quality.scorer.OUTPUTS` side by side, on the CPU.
        """
        scorer = Scorer(self.networks.model, self.networks.merged, self._config.terms.score)
        with self._evaluating(), full_float32(self._ranks.device):
            outputs = scorer(images.to(self._ranks.device, non_blocking=True))
        return torch.cat([output.reshape(len(images), -1) for output in outputs], dim=1).cpu()

    def losses(self, means: Sequence[float]) -> dict[str, float]:
        """The T means by name, behind the sum that the model learns from."""
        losses = dict(zip(self.terms, means, strict=True))
        learned = zip(self._weights, losses.items(), strict=True)
        return {TOTAL: sum(w * value for w, (name, value) in learned if name != MERGED), **losses}

    def curves(self, rate: float) -> dict[str, float]:
        """The weights of the terms, and the learning rate of the image tower."""
        weights = {f"weight/{name}": w for name, w in zip(self.terms, self._weights, strict=True)}
        return weights | {"rate/tower": rate * self._config.learning_rate}

    def weights(self) -> dict[str, Tensor]:
        """The weights of both networks by name."""
        return self.networks.state_dict()

    def state(self) -> dict[str, Any]:
        """What else a checkpoint has to hold of them: plain values and tensors."""
        return {
            "optimiser": self._optimiser.state_dict(),
            "tower": self.networks.model.tower.to_json(),
            "source": self.source,
        }

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode for a while."""
        self.networks.eval()
        try:
            yield
        finally:
            self.networks.train()

    def _hold_gradients(self) -> contextlib.AbstractContextManager[None]:
        """Keep the processes from adding up their gradients yet."""
        if isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return contextlib.nullcontext()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=self._config.bf16)

    def _wrap(self, images: int) -> nn.Module:
        """What a step calls: the networks, compiled and joined to the other processes where asked for."""
        config, ranks = self._config, self._ranks
        cuda = ranks.device.type == "cuda"
        if cuda:
            torch.backends.cudnn.benchmark = True
        synced = ranks.world_size > 1 and cuda and config.sync_batchnorm
        if synced:
            self.networks = nn.SyncBatchNorm.convert_sync_batchnorm(self.networks)  # type: ignore[no-untyped-call]
        asked = Compilation.NO if synced and config.compiled is Compilation.AUTO else config.compiled
        compiled = compile_network(self.networks, asked, device=ranks.device.type, images=images)
        if cuda and config.channels_last and not compiled:
            speed_up_pools(self.networks)
        if ranks.world_size == 1:
            return self.networks
        # Joined outside, compiled inside: what is compiled within a DistributedDataParallel is cut where its buckets
        # end (torch._dynamo.config.optimize_ddp), so that gradients travel while others are still computed.
        # SyncBatchNorm cannot be compiled and cuts at each of its layers instead, which leaves little to compile.
        # No static_graph: every parameter has a gradient in every step, so it would save nothing, and PyTorch 2.15
        # fails where a no_sync meets it. No buffers are sent in every step: the prompts' embeddings never change, and
        # `sync_buffers` brings batch statistics together where they count.
        places = [ranks.device] if cuda else None
        return DistributedDataParallel(
            self.networks, device_ids=places, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def _build(config: TrainingConfig, start: Checkpoint | None, data: Images | None) -> TrainedNetworks:
    """The networks: with their first weights, or with those of a checkpoint, for which no text tower is needed."""
    merged = build_merged(config.model, config.seed) if config.terms.merged else None
    if start is None:
        model = build_model(config.model, config.seed)
        if data is not None and isinstance(model.visual, IResNet | MobileFaceNet) and model.visual.folded:
            settle_backbone(model.visual, model.prepare(read_spread(data)))
        return TrainedNetworks(model, merged)
    tower: Mapping[str, Any] = start.state["tower"]
    found = ClipConfig.from_json(tower)
    features = start.weights["model.text_features"]
    model = QualityModel(found, build_image_encoder(found), features, torch.zeros(())).train()
    networks = TrainedNetworks(model, merged)
    load_strictly(networks, start.weights, f"the checkpoint of step {start.step}")
    return networks
