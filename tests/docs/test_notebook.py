"""The notebook runs from its first cell to its last, in the folder of the reader who followed the tutorial."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.documents import ROOT, environment
from data_manifests.weights.files import WeightsError, find
from data_manifests.weights.registry import DETECTOR, load_registry

if TYPE_CHECKING:
    from benchmarks.documents import Reader

NOTEBOOK = ROOT / "examples" / "faces_in_python.ipynb"


def test_the_notebook_runs(reader: Reader) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)  # faces of people do not belong into the repository
    told = ["assert len(labels) == 64 and labels['norm'].is_not_null().all()",
            "assert len(scores) == 64 and scores['quality'].is_between(0, 1).all()"]  # fmt: skip
    try:
        find(load_registry().get(DETECTOR))
        told.append("assert len(found) == 2")
    except WeightsError:  # it comes from the network alone, which may not be there
        cells = [cell for cell in cells if "labelers.align" not in "".join(cell["source"])]
    command = [sys.executable, "-c", "\n".join(["".join(cell["source"]) for cell in cells] + told)]
    done = subprocess.run(command, cwd=reader.folder, env=environment(), capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
