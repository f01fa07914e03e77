"""Runs the commands and snippets of a Markdown page as its reader would, in order, and compares what they print.

A fence of `sh` holds commands, one of `python` a snippet, and a fence of `text` right below shows what they print: each
of its lines has to be printed, in that order, with any others between them. There `…` stands for any text, blanks and
the lines of frames do not count, and fingerprints are all alike. A comment above a fence changes its meaning:

    <!-- not run: WHY -->        its commands are read, not run
    <!-- numbers vary -->        whatever number stands in the fence, some number has to stand in the output
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
PAGES = tuple(
    sorted(
        path
        for folder in (".", "docs", "docs/howto", "docker", "data_manifests/weights")
        for path in (ROOT / folder).glob("*.md")
    )
)
"""All pages of the project."""
NOT_RUN = "not run"
VARYING = "numbers vary"
COLUMNS = "100"
"""Width of the terminal in which commands run."""

_FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_FRAME = re.compile(r"[\u2500-\u257f\u2580-\u259f|]+")
_FINGERPRINT = re.compile(r"\b[0-9a-f]{12}\b")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")
_LEFT_ALONE = ("workspace", "data", ".git")
"""Folders that do not belong to the code, or must not be written to."""


class DocumentError(AssertionError):
    """A page does not say what happens; names the page, the line, and what happens instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """One block of code of a page.

    Attributes:
        page: where it stands.
        line: of its first fence mark.
        language: as written behind that mark.
        text: the block.
        note: the comment right above, if there is one.
    """

    page: Path
    line: int
    language: str
    text: str
    note: str

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.page.name}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether a reader is to run it, here too."""
        return self.language in {"sh", "python"} and not self.note.startswith(NOT_RUN)

    def commands(self) -> list[str]:
        """The commands of a block of shell, without comments, each on one line."""
        joined = self.text.replace("\\\n", " ")
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


@dataclass(slots=True, kw_only=True)
class Reader:
    """Somebody who follows pages in a folder that looks like a fresh clone.

    Attributes:
        folder: the clone.
        names: what the snippets of the pages have defined.
    """

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def with_clone(cls, folder: Path) -> Self:
        """Make the clone: copies of files, so that none here is written to, and links to folders."""
        folder.mkdir(parents=True)
        for path in ROOT.iterdir():
            if path.is_file():
                shutil.copy(path, folder)
            elif path.name not in _LEFT_ALONE:
                (folder / path.name).symlink_to(path)
        return cls(folder=folder)

    def follow(self, page: Path, *, languages: tuple[str, ...] = ("sh", "python")) -> str:
        """Run a page from top to bottom; returns all that was printed.

        Raises:
            DocumentError: if a command fails, or does not print what the page shows.
        """
        printed, everything = "", []
        for fence in read_fences(page):
            if fence.language == "text":
                compare(fence, printed)
            elif fence.is_run and fence.language in languages:
                printed = self.run(fence)
                everything.append(printed)
        return "\n".join(everything)

    def run(self, fence: Fence) -> str:
        """What one block prints."""
        return self._exec(fence) if fence.language == "python" else self._shell(fence)

    def _shell(self, fence: Fence) -> str:
        """Run commands in a shell that stops at the first one that fails."""
        command = ["bash", "-euo", "pipefail", "-c", "\n".join(fence.commands())]
        done = subprocess.run(
            command, cwd=self.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise DocumentError(f"{fence.place}: ended with exit code {done.returncode}:\n{fence.text}\n{done.stdout}")
        return done.stdout

    def _exec(self, fence: Fence) -> str:
        """Run a snippet in this process, after those of earlier blocks."""
        printed = io.StringIO()
        code = compile("\n" * fence.line + fence.text, str(fence.page), "exec")
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
            exec(code, self.names)
        return printed.getvalue()


def environment() -> dict[str, str]:
    """The variables of somebody who has just activated .venv: no setting of this project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FIQA_", "LUIGI_"))}
    kept |= {name: value for name in ("FIQA_CACHE", "FIQA_MODELS") if (value := os.environ.get(name))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": COLUMNS, "NO_COLOR": "1"}


def read_fences(page: Path) -> list[Fence]:
    """All blocks of code of a page, in order."""
    content = page.read_text()
    return [
        Fence(
            page=page,
            line=content.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            text=found["text"],
            note=found["note"] or "",
        )
        for found in _FENCE.finditer(content)
    ]


def compare(fence: Fence, printed: str) -> None:
    """Find every line of a fence in an output.

    Raises:
        DocumentError: names the first line that is not printed.
    """
    varying = fence.note.startswith(VARYING)
    lines = [plain for line in printed.splitlines() if (plain := _plain(line, varying=varying))]
    place = 0
    for line in fence.text.splitlines():
        wanted = _plain(line, varying=varying)
        if not wanted or wanted == "…":
            continue
        pattern = re.compile(".*".join(re.escape(piece.strip()) for piece in wanted.split("…")))
        while place < len(lines) and not pattern.fullmatch(lines[place]):
            place += 1
        if place == len(lines):
            raise DocumentError(f"{fence.place}: this line is not printed, or not in this order:\n{line}\n\n{printed}")
        place += 1


def _plain(line: str, *, varying: bool) -> str:
    """A line without what may differ."""
    text = _FINGERPRINT.sub("FINGERPRINT", _FRAME.sub(" ", line))
    text = _NUMBER.sub("0", text) if varying else text
    return " ".join(text.split())
