"""The methods that the command line names: networks, lists of scores and baselines."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.weights.entry import Kind as Network
from data_manifests.weights.registry import find_network
from training.evaluation.methods.kinds import ANCHORED, BASELINES, FLOOR, UNWEIGHTED, WITH_PATH, MethodKind

if TYPE_CHECKING:
    from collections.abc import Sequence

NETWORKS = (MethodKind.MODEL, MethodKind.ONNX)

_NAME = re.compile(r"\w[\w .+()-]{0,59}")
_METHOD = re.compile(r"(?:(?P<name>[^=:]*)=)?(?P<kind>\w+)(?::(?P<path>.*))?", re.DOTALL)
"""A path may hold an equals sign and a colon, a name may not."""
_SUFFIXES = (".csv", ".onnx", ".parquet", ".pt", ".pth", ".safetensors", ".tsv", ".txt")
_COLUMN = "#"
"""Behind the path of a list, before the name of its column."""
_CURRENT = "current"
"""The link to the run that was asked for last."""
_SHARED_NAMES = ("model", "quality", _CURRENT, "quality_model", "on_top")
"""Names of files and folders that many runs share."""
_RUN = re.compile(r"[0-9a-f]{12}")
"""The name of a run's folder, which says what it is beside that of its data set."""


class MethodError(ValueError):
    """A method is not one; says which and what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One quality that is evaluated.

    Attributes:
        name: in tables and figures; unique in an evaluation.
        kind: where it comes from.
        path: its file or folder; None for a baseline.
        recogniser: network of models.toml whose anchors these are; empty: that whose errors are counted.
        column: of a list, as `read_scores` takes it.
    """

    name: str
    kind: MethodKind
    path: Path | None = None
    recogniser: str = ""
    column: str = ""


def parse_methods(text: str) -> tuple[Method, ...]:
    """Read a list such as `clib=model:runs/a,table:scores.csv,norm`.

    What is not named gets the shortest end of its path that no other method has, without suffix: `a` for `runs/a`, and
    `ms1mv2/8c1f02b4d6e7` for the run to which `ms1mv2/quality_model/current` points.

    Args:
        text: methods separated by commas, each `KIND:PATH` or a baseline, with `NAME=` before it to name it: one of
            ANCHORED is then called `KIND (NAME)`. Behind a
            baseline of ANCHORED may stand `:RECOGNISER`, and behind the path of a list `#COLUMN`, unless there is a
            file that is called so as a whole.

    Raises:
        MethodError: names the method and what is allowed.
        RegistryError: if a folder is named as a recogniser, and holds none.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise MethodError(f"no method is named: {_describe_kinds()}")
    found = [_parse(word) for word in words]
    taken = [method.name for method in found if method.name]
    endings = [_endings(method) for method in found if not method.name]
    methods = tuple(
        method if method.name else replace(method, name=_shorten(method, endings, taken)) for method in found
    )
    twice = [name for name, count in Counter(method.name for method in methods).items() if count > 1]
    if twice:
        raise MethodError(f"two methods are called {twice[0]}: leave one out, or give it another name, as NAME=...")
    return methods


def _parse(word: str) -> Method:
    """One method; without a name where its path has to give one."""
    parts = _METHOD.fullmatch(word)
    if parts is None or parts["kind"] not in list(MethodKind):
        raise MethodError(f"{word[:120]!r} is no method: {_describe_kinds()}")
    name, kind, path = parts["name"], MethodKind(parts["kind"]), parts["path"]
    alone = kind not in (*WITH_PATH, *ANCHORED)
    if (alone and path is not None) or (kind in WITH_PATH and path is None) or path == "":
        wanted = f"{kind} alone" if alone else f"{kind}:{'PATH' if kind in WITH_PATH else 'RECOGNISER'}"
        raise MethodError(f"{word[:120]!r}: write {wanted}")
    if name is not None:
        _check_name(name, kind, word)
        # Its name says what it is: whoever reads the report has to see that it knows the people.
        name = f"{kind} ({name})" if kind in ANCHORED and name != kind else name
    if path is None:
        return Method(name=name or kind.value, kind=kind)
    if kind in WITH_PATH:
        path, column = _split_column(path) if kind is MethodKind.TABLE else (path, "")
        return Method(name=name or "", kind=kind, path=Path(path).expanduser().absolute(), column=column)
    recogniser, _ = find_network(path, Network.RECOGNITION)
    return Method(name=name or f"{kind} ({recogniser})", kind=kind, recogniser=recogniser)


def _split_column(text: str) -> tuple[str, str]:
    """The path of a list and the column behind it; a path may hold the sign, too."""
    path, sign, column = text.rpartition(_COLUMN)
    return (path, column) if path and sign and not Path(text).expanduser().is_file() else (text, "")


def _check_name(name: str, kind: MethodKind, word: str) -> None:
    """Refuse a name that cannot be shown, or that stands for something else."""
    if not _NAME.fullmatch(name):
        raise MethodError(
            f"{word[:120]!r}: a name has 1 to 60 letters, digits, blanks and . + ( ) - _, and begins with a letter or "
            "digit"
        )
    if name in (FLOOR, UNWEIGHTED) or (name in list(MethodKind) and name != kind.value):
        raise MethodError(f"{word[:120]!r}: {name} stands for something else: give another name")


def _endings(method: Method) -> tuple[str, ...]:
    """What a method may be called by its path and column, shortest first."""
    path, column = _follow(method.path or Path()), method.column.removeprefix("-")
    last = path.stem if path.suffix in _SUFFIXES else path.name
    parts = [part for part in (*path.parts[1:-1], last) if part not in _SHARED_NAMES] or [last]
    behind = f" ({column})" * bool(column)
    endings = tuple("/".join(parts[start:]) + behind for start in reversed(range(len(parts))))
    return endings[1:] if _RUN.fullmatch(endings[0]) and len(parts) > 1 else endings


def _follow(path: Path) -> Path:
    """The path with the run to which `current` points instead of that link."""
    for link in (path, *path.parents):
        if link.name == _CURRENT and link.is_symlink():
            return link.parent / link.readlink() / path.relative_to(link)
    return path


def _shorten(method: Method, endings: Sequence[tuple[str, ...]], taken: Sequence[str]) -> str:
    """The shortest ending that no other method has, and that is no other method's name."""
    for ending in _endings(method):
        alike = sum(ending in others for others in endings)
        if alike == 1 and ending not in (*taken, FLOOR, UNWEIGHTED, *MethodKind):
            return ending
    raise MethodError(f"{method.path} is named twice, or has no name of its own: give it one, as NAME=...")


def _describe_kinds() -> str:
    """What may be written."""
    paths = ", ".join(f"{kind}:PATH" for kind in WITH_PATH)
    others = f":RECOGNISER may stand behind {', '.join(ANCHORED)}"
    return f"there are {paths}, {', '.join(BASELINES)}; {others}; NAME= before one names it"
