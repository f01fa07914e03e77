"""Puts into README.md what `make labels` prints.

    python -m benchmarks.readme

Labels the sample in a folder of its own, so what stands in the workspace plays no part.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.documents import ROOT, environment
from benchmarks.truth import replace_section

PAGE = ROOT / "README.md"
MARKS = ("<!-- labels: made by python -m benchmarks.readme -->", "<!-- end of labels -->")


def main() -> None:
    """Run it and write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as name:
        replace_section(PAGE, as_block(label_sample(Path(name).resolve()), Path(name).resolve()), MARKS)


def label_sample(folder: Path) -> str:
    """What the first command of `make labels` prints, run in a folder."""
    luigi = Path(sys.executable).with_name("luigi")
    command = [luigi, "--module", "pipeline", "LabelAll", "--dataset", "sample", "--workers", "2"]
    return subprocess.run(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


def as_block(printed: str, folder: Path) -> str:
    """An output as a block of Markdown, with paths as they are in the project's folder."""
    lines = [line.rstrip() for line in printed.replace(f"{folder}/", "").strip("\n").splitlines()]
    return "\n".join(["```", *lines, "```"])


if __name__ == "__main__":
    main()
