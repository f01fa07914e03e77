"""The tree of the packages in docs/architecture.md: folders and modules with the first lines of their docstrings.

python -m benchmarks.tree
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.storage.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("data_manifests", "labelers", "pipeline", "training")
BEGIN, END = "<!-- tree: made by python -m benchmarks.tree -->", "<!-- end of tree -->"


def main() -> None:
    write_atomically(PAGE, lambda file: file.write(renew(PAGE.read_text()).encode()))


def renew(page: str) -> str:
    """The page with the tree of today between its marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    lines = [line for package in PACKAGES for line in list_folder(ROOT / package, 0)]
    return f"{before}{BEGIN}\n\n```\n" + "\n".join(lines) + f"\n```\n\n{END}{after}"


def list_folder(folder: Path, depth: int) -> Iterator[str]:
    """A folder, its modules, and the folders in it."""
    yield describe(f"{'  ' * depth}{folder.name}/", folder / "__init__.py")
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield describe(f"{'  ' * (depth + 1)}{path.name}", path)
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from list_folder(inner, depth + 1)


def describe(name: str, module: Path) -> str:
    """A name with the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    return f"{name:<32}{text.splitlines()[0] if text else ''}".rstrip()


if __name__ == "__main__":
    main()
