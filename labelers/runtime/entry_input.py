"""What a network of models.toml wants to see, as its entry says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelers.runtime.picture_input import Colour, InputSpec

if TYPE_CHECKING:
    from data_manifests.weights.entry import ModelEntry


def input_spec(entry: ModelEntry) -> InputSpec:
    """What the networks of an entry want to see.

    Raises:
        ValueError: if the entry has no table `input`.
    """
    if entry.input is None:
        raise ValueError(f"{entry.name} has no [input] table in models.toml, which an ONNX network needs")
    return InputSpec(
        width=entry.input.width,
        height=entry.input.height,
        colour=Colour(entry.input.colour.value),
        mean=entry.input.mean,
        std=entry.input.std,
    )
