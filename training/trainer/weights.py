"""Files of weights: read without running what they hold, and loaded without a silent difference."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from data_manifests.storage.torch_archive import TorchArchive
from data_manifests.storage.values import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SHOWN = 8

_LIGHTNING = "pytorch_lightning."
"""Where the classes are that PyTorch Lightning may name beside the weights of its checkpoints (.ckpt); AdaFace's are
such. Plain dictionaries take their place: nothing of it is imported or run."""


class WeightsError(RuntimeError):
    """A file of weights that cannot be read, or that does not fit its model."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, whichever way it was saved.

    Args:
        path: .safetensors, a state dict of torch.save (alone or under `state_dict`, as `module.` when several GPUs
            trained it; .ckpt of PyTorch Lightning), or a TorchScript archive, as OpenAI published CLIP. Nothing pickled
            beside tensors is run.

    Returns:
        Tensors on the CPU in their stored type, without the prefix `module.`.

    Raises:
        WeightsError: if the file is something else; names it.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    try:
        content = _read(path)
    except Exception as error:  # a damaged file makes these parsers raise nearly anything
        raise WeightsError(
            f"{path} is not a file of weights that can be read without running code of its own "
            f"({first_line(error)}): "
            "save the model's state_dict() with torch.save or safetensors"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} does not hold a state dict: save the model's state_dict(), nothing around it")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def _read(path: Path) -> Any:
    """What lies in the file: safetensors, TorchScript, or a pickle of tensors."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if _is_torchscript(path):
        return _read_torchscript(path)
    foreign = get_unsafe_globals_in_checkpoint(path) if path.suffix == ".ckpt" else []
    with safe_globals([(dict, name) for name in foreign if name.startswith(_LIGHTNING)]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive; those that share a storage go on sharing it."""
    with TorchArchive(path) as archive:
        storages = {
            tensor.storage: torch.UntypedStorage.from_buffer(archive.storage_of(tensor), dtype=torch.uint8)
            for tensor in archive.tensors.values()
        }
        return {
            name: torch.empty(0, dtype=getattr(torch, tensor.kind)).set_(
                storages[tensor.storage], tensor.offset, tensor.shape, tensor.strides
            )
            for name, tensor in archive.tensors.items()
        }


def _is_torchscript(path: Path) -> bool:
    """Whether the file is an archive with code beside its tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], path: Path | str) -> None:
    """Fill a model; every weight must be there, none may be left over, and every shape must fit.

    Args:
        model: what is filled, in place; its types stay.
        state: what is filled in.
        path: where the state came from, for the error.

    Raises:
        WeightsError: names the weights that do not fit.
    """
    wanted = model.state_dict()
    faults = {
        "missing": sorted(wanted.keys() - state.keys()),
        "not of this model": sorted(state.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {list(state[name].shape)} instead of {list(value.shape)}"
            for name, value in wanted.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    if any(faults.values()):
        parts = [f"{what}: {_shorten(names)}" for what, names in faults.items() if names]
        raise WeightsError(f"{path} does not fit the model; {'; '.join(parts)}")
    model.load_state_dict(dict(state), strict=True)


def _shorten(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
