"""What the tests of training share: open_clip is imported and small models are built once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.model import QualityModel


@pytest.fixture(scope="session")
def small_model() -> Callable[[str], QualityModel]:
    """Builds the named small tower with random weights; a fresh copy every time, in evaluation mode."""
    import copy  # noqa: PLC0415 - placed here so that it stands beside its use

    from training.model import ModelConfig, build_model  # noqa: PLC0415

    torch.set_num_threads(1)
    built: dict[str, QualityModel] = {}

    def build(name: str) -> QualityModel:
        if name not in built:
            built[name] = build_model(ModelConfig(tower=name, pretrained=""), seed=1).eval()
        return copy.deepcopy(built[name])

    return build
