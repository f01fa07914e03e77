"""A labeler's code does not change without anybody saying what that means for its output."""

from __future__ import annotations

import pytest

from labelers.versions import VERSIONS, hash_code


@pytest.mark.parametrize("stage", VERSIONS)
def test_code_and_version_go_together(stage: str) -> None:
    version = VERSIONS[stage]
    assert hash_code(version.modules) == version.code, (
        f"the code of {stage} has changed: raise its number in labelers/versions.py if its output changes, and set "
        "`code` to what `python -m labelers.versions` prints"
    )
