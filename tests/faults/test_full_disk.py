"""A disk that is full while arrays and checkpoints are written: the same message as everywhere, and nothing stays."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.mounting import may_mount

if TYPE_CHECKING:
    from pathlib import Path

CENTRES = """
    import numpy as np, pyarrow as pa
    from data_manifests.storage.parquet import write_table
    from labelers.anchors.centres import Centres
    from pipeline.stages.anchors import centres_table, write_centre_vectors
    sums = np.random.default_rng(0).standard_normal((300, 512)).astype(np.float32)
    numbers = np.arange(300, dtype=np.int32)
    table = centres_table(Centres(identities=numbers, counts=numbers + 1, sums=sums))
    write_table(elsewhere / "c.parquet", table.replace_schema_metadata({"stage": "centres", "shards": "1"}))
    write_centre_vectors(elsewhere / "c.parquet", full / "centres.npy")
"""
CHECKPOINT = """
    import torch
    from training.trainer.checkpoint import Checkpoint, CheckpointFolder
    state = {"optimiser": torch.randn(150_000)}
    CheckpointFolder(root=full, run="r").save(Checkpoint(step=1, weights={"w": torch.ones(9)}, state=state))
"""


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount a small file system in a name space of its own")
@pytest.mark.parametrize("work", [CENTRES, CHECKPOINT], ids=["centres", "checkpoint"])
def test_a_disk_that_fills_is_told_in_the_same_words(tmp_path: Path, work: str) -> None:
    full, elsewhere = tmp_path / "full", tmp_path / "elsewhere"
    full.mkdir()
    elsewhere.mkdir()
    program = f"""
        import pathlib, sys
        from data_manifests.storage.atomic import DiskFullError
        full, elsewhere = map(pathlib.Path, sys.argv[1:])
        try:
            {textwrap.indent(textwrap.dedent(work), " " * 12).strip()}
        except DiskFullError as error:
            print(error)
            print([path.name for path in full.rglob("*") if path.is_file() and path.stat().st_size > 1000])
    """
    mount = 'mount -t tmpfs -o size=200k tmpfs "$1" && exec "$0" -c "$3" "$1" "$2"'
    command = ["unshare", "-rm", "sh", "-c", mount, sys.executable, full, elsewhere, textwrap.dedent(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, left = done.stdout.splitlines()
    assert "no space is left in" in said
    assert str(full) in said
    assert said.endswith("free some, then run the same command again")
    assert left == "[]"
