"""Paths of images as lists that people publish have them: found again among the images of a folder."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def clean_path(path: str) -> str:
    r"""A path with slashes, without needless parts, and in Unicode's composed form.

    >>> clean_path("D:\\faces\\.\\anna/1.jpg")
    'D:/faces/anna/1.jpg'
    """
    parts = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def find_among(paths: Sequence[str]) -> Callable[[str | None], int | None]:
    """What finds the image that a list means.

    A list may write folders before the path (`/data/faces/anna/1.jpg`, or the folder's own name), backslashes, and
    letters with marks in another form than the disk; or the name of the file alone, where no other image has it.

    Args:
        paths: of the images below their folder.

    Returns:
        From a path to the place in `paths`; None where there is no such image.
    """
    places: dict[str, int] = {}
    names: dict[str, int | None] = {}
    for place, path in enumerate(map(clean_path, paths)):
        places.setdefault(path, place)
        name = path.rsplit("/", 1)[-1]
        names[name] = None if name in names else place
    exact = {path: place for place, path in enumerate(paths)}

    def find(path: str | None) -> int | None:
        if not path or path in exact:
            return exact.get(path or "")
        wanted = clean_path(path)
        rest = wanted
        while rest not in places and "/" in rest:
            rest = rest.partition("/")[2]
        return places.get(rest, None if "/" in wanted else names.get(wanted))

    return find


def find_shared(names: Iterable[str], places: Iterable[int | None]) -> tuple[int, str] | None:
    """The row of the first name whose image an earlier, different name means too, and that name; None if none does.

    Folders before two paths may be all that parts them.

    Args:
        names: of images as a list writes them.
        places: of their images.
    """
    owners: dict[int, str] = {}
    for row, (name, place) in enumerate(zip(names, places, strict=True)):
        if place is not None and (other := owners.setdefault(place, clean_path(name))) != clean_path(name):
            return row, other
    return None
