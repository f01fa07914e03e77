"""Real faces for the tests of the labelers."""

from __future__ import annotations

import pytest

from data_manifests.recordio.record_file import RecordFile
from labelers.faces import decode


@pytest.fixture(scope="session")
def real_faces(real_data):
    """Every 50th of the damaged real faces, uint8 [112, 112, 3] RGB."""
    with RecordFile(real_data / "data/lfw112_mixed/train.rec") as file:
        return [decode(file.read(int(key))[1]) for key in file.keys[::50]]
