"""No file that a user names can have code run: no call in the product would do that."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("data_manifests", "labelers", "pipeline", "training")
FORBIDDEN = {
    "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "torch.export.load", "pickle.load",
    "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "yaml.load", "os.system",
    "eval", "exec", "cv2.dnn.readNet", "cv2.dnn.readNetFromONNX", "pandas.read_pickle",
}  # fmt: skip
FOREIGN = {"dill", "joblib", "cloudpickle", "jsonpickle", "marshal", "shelve"}
CLOSED_UNPICKLER = "data_manifests/storage/pickles.py"
READS_ONNX = "labelers/runtime/onnx.py"


def find_faults(source: str, file: str = "x.py") -> Iterator[str]:
    """Every call that would run what a file holds, or follow it to other files, and every name that hides one."""
    tree = ast.parse(source)
    names = {"np": "numpy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname}
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in FOREIGN)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in node.names}
            yield from (module for _ in [0] if module.split(".")[0] in FOREIGN)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, given = dotted(node.func, names), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if (
                name in FORBIDDEN
                or (name == "torch.load" and given.get("weights_only") != "True")
                or given.get("allow_pickle", "False") != "False"
                or (name == "onnx.load" and file != READS_ONNX and given.get("load_external_data") != "False")
                or (name == "cv2.FaceDetectorYN.create" and ast.unparse(node.args[0]) != "'onnx'")
                or given.get("shell", "False") != "False"
            ):
                yield ast.unparse(node)
        elif isinstance(node, ast.ClassDef) and file != CLOSED_UNPICKLER:
            yield from (b for b in (dotted(base, names) for base in node.bases) if b in FORBIDDEN)


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """The full name of what is called; empty for what has none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return ""


def test_no_call_of_the_product_runs_what_a_file_holds() -> None:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            file = str(path.relative_to(ROOT))
            if faults := list(find_faults(path.read_text(), file)):
                found[file] = faults
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.jit.load(path)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=trusted)",
        "from torch import load as read\nread(path)",
        "from torch import jit\njit.load(path)",
        "import pickle as p\np.loads(data)",
        "from pickle import Unpickler\nclass Mine(Unpickler): ...",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import onnx\nonnx.load(path)",
        "import cv2\ncv2.FaceDetectorYN.create(path, '', size)",
        "import joblib",
        "from cloudpickle import loads",
        "eval(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
    ],
)
def test_such_calls_are_seen(source: str) -> None:
    assert list(find_faults(source))
