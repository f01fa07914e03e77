"""A page as a tree, for tests that look for what stands in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VOID = {"meta", "img", "br", "link", "input"}
HIDDEN = {"style", "script"}


@dataclass
class Element:
    """An element with its attributes and what is in it."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    inside: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, in one line."""
        words = (part if isinstance(part, str) else part.text for part in self.inside if self.tag not in HIDDEN)
        return " ".join(" ".join(words).split())

    def walk(self) -> Iterator[Element]:
        """It and every element in it."""
        yield self
        for part in self.inside:
            if isinstance(part, Element):
                yield from part.walk()

    def all(self, tag: str = "", **wanted: str) -> list[Element]:
        """Elements of a tag whose attributes have these values; `_` stands for `-`, and classes may have others too."""
        names = {name.rstrip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [
            element for element in self.walk()
            if tag in ("", element.tag)
            and all(
                value in element.attributes.get(name, "").split() if name == "class"
                else element.attributes.get(name) == value
                for name, value in names.items()
            )
        ]  # fmt: skip

    def one(self, tag: str = "", **wanted: str) -> Element:
        """The only such element."""
        (found,) = self.all(tag, **wanted)
        return found


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, tag

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def read_page(text: str) -> Element:
    """The tree of a page, all of whose elements have to be closed in their order."""
    builder = _Builder()
    builder.feed(text)
    builder.close()
    assert builder.open == [builder.root], [element.tag for element in builder.open]
    return builder.root
