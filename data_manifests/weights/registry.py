"""The registry of networks: every network by its name.

The shipped registry is models.toml beside this file. Every folder named in FIQA_MODELS may hold a models.toml with
further entries of the same form (data_manifests.weights.entry.ModelEntry).
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from data_manifests.storage.toml_file import TomlFileError, check, read_toml, suggest
from data_manifests.weights.entry import ModelEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from data_manifests.weights.entry import Kind

SHIPPED = Path(__file__).with_name("models.toml")

DETECTOR = "yunet"
"""The detector of models.toml that is taken where none is named."""

HEAD = "head.safetensors"
"""The class centres beside the models.toml of a recogniser's training."""


class RegistryError(TomlFileError):
    """The registry of networks does not hold what was asked for, or holds it twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All networks that are known here.

    Attributes:
        entries: name -> entry.
        origins: name -> the file that holds it.
    """

    entries: Mapping[str, ModelEntry]
    origins: Mapping[str, Path]

    def get(self, name: str, *kinds: Kind) -> ModelEntry:
        """The entry of that name.

        Args:
            name: as in models.toml.
            kinds: what it must be for, if that matters.

        Raises:
            RegistryError: if there is none, or if it is for something else; names those that would do.
        """
        fitting = self.names(*kinds)
        entry = self.entries.get(name)
        if entry is None:
            raise RegistryError(
                f"no network is called {name!r}{suggest(name, fitting)}: there are {', '.join(fitting)}; "
                "a models.toml in a folder of FIQA_MODELS can add others"
            )
        if kinds and entry.kind not in kinds:
            wanted = " or ".join(kinds)
            raise RegistryError(f"{name} is a network for {entry.kind}, not {wanted}: use one of {', '.join(fitting)}")
        return entry

    def names(self, *kinds: Kind) -> tuple[str, ...]:
        """The names of all networks of these kinds, or of any kind, sorted."""
        return tuple(sorted(name for name, entry in self.entries.items() if not kinds or entry.kind in kinds))


def model_folders() -> tuple[Path, ...]:
    """The folders of FIQA_MODELS, in order.

    Raises:
        RegistryError: if one of them does not exist.
    """
    folders = []
    for text in os.environ.get("FIQA_MODELS", "").split(os.pathsep):
        if text.strip():
            folder = Path(text.strip()).expanduser().absolute()
            if not folder.is_dir():
                raise RegistryError(f"FIQA_MODELS names {folder}, which is no folder: correct FIQA_MODELS")
            folders.append(folder)
    return tuple(folders)


def find_network(text: str, *kinds: Kind) -> tuple[str, Path | None]:
    """The network that a name, or the folder of a training that made one, stands for.

    The folder is searched for networks from then on, by this process and those that it starts.

    Args:
        text: a name as in models.toml, or a folder that holds a models.toml.
        kinds: what the network must be for.

    Returns:
        Its name; and the folder, with links followed, where one was given.

    Raises:
        TomlFileError: if the folder's models.toml is wrong.
        RegistryError: if there is no such folder, or if it holds not exactly one network of these kinds.
    """
    folder = Path(text).expanduser()
    if text in _shipped() or not (folder.is_dir() or os.sep in text):
        return text, None
    if not (path := folder / SHIPPED.name).is_file():
        raise RegistryError(
            f"{text} is no folder of a trained network: it has no {SHIPPED.name}; name a network, or the folder of a "
            "training that is done"
        )
    fitting = [name for name, entry in read_entries(path).items() if not kinds or entry.kind in kinds]
    if len(fitting) != 1:
        raise RegistryError(
            f"{path} holds {len(fitting)} networks for {' or '.join(kinds)}{': ' if fitting else ''}"
            f"{', '.join(fitting)}; name a folder with one, or list the folder in FIQA_MODELS and name the network"
        )
    folder = folder.resolve()
    if folder not in model_folders():
        others = os.environ.get("FIQA_MODELS", "")
        os.environ["FIQA_MODELS"] = os.pathsep.join(filter(None, [str(folder), others]))
    return fitting[0], folder


def load_registry() -> Registry:
    """The shipped networks and those of the folders of FIQA_MODELS.

    Raises:
        TomlFileError: if a file is wrong.
        RegistryError: if a file of FIQA_MODELS gives a known name to another network.
    """
    entries = dict(_shipped())
    origins = dict.fromkeys(entries, SHIPPED)
    for folder in model_folders():
        path = folder / SHIPPED.name
        if not path.is_file():
            continue
        for name, entry in read_entries(path).items():
            if name not in entries:
                entries[name], origins[name] = entry, path
            elif not entry.same_network(entries[name]):
                raise RegistryError(
                    f"{path} describes {name!r} differently from {origins[name]}: give your network another name"
                )
    return Registry(entries=MappingProxyType(entries), origins=MappingProxyType(origins))


def read_entries(path: Path) -> dict[str, ModelEntry]:
    """Read the entries of one models.toml.

    Raises:
        TomlFileError: if it is wrong; names the file, the field and the remedy.
    """
    entries = {}
    for name, table in read_toml(path).items():
        if not isinstance(table, dict):
            raise TomlFileError(f"{path} is wrong: {name!r} stands outside any network's table: write it below [NAME]")
        if "name" in table:
            raise TomlFileError(
                f"{path} is wrong: `{name}.name`: the table's own name is the network's name: remove it"
            )
        entries[name] = check(ModelEntry, {"name": name, **table}, path, name)
    return entries


@functools.cache
def _shipped() -> Mapping[str, ModelEntry]:
    """The entries of the shipped registry, read once."""
    return MappingProxyType(read_entries(SHIPPED))
