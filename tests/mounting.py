"""Whether a test may mount file systems in a name space of its own."""

from __future__ import annotations

import shutil
import subprocess


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
