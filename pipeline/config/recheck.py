"""Whether a data set is still what it was: by size and time on every run, by all of its content on `--recheck`.

Fingerprints hold a token. It is the digest of index, size and time, unless a recheck found that the content of an
unchanged-looking file is another (then the content enters), or that a file with a new time has a content that was
seen before (then the earlier token stays, and nothing is computed again).
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from data_manifests.identity import read_identity
from data_manifests.storage.json_files import DamagedFileError, read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from data_manifests.manifest import Manifest

logger = logging.getLogger(__name__)

_FILE = "data.json"


def data_token(manifest: Manifest, receipts: Path, *, recheck: bool) -> str:
    """What stands for the data set in every fingerprint.

    Args:
        manifest: the data set.
        receipts: the folder in which earlier rechecks are remembered.
        recheck: read all content.

    Raises:
        ManifestError: if the data are not there.
    """
    identity = read_identity(manifest, recheck=recheck)
    seen = _read(receipts / _FILE)
    known = seen.get(identity.digest)
    if identity.content_sha256 is None:
        return known["token"] if known else identity.digest
    token = _judge(identity.digest, identity.content_sha256, seen)
    seen[identity.digest] = {"content": identity.content_sha256, "token": token}
    write_json(receipts / _FILE, seen)
    return token


def _judge(digest: str, content: str, seen: dict[str, dict[str, str]]) -> str:
    """The token of a content that was read just now."""
    known = seen.get(digest)
    if known is not None and known["content"] == content:
        logger.info("recheck: the content is what it was")
        return known["token"]
    for other in seen.values():
        if other["content"] == content:
            logger.info("recheck: the content was seen before under another time; nothing becomes stale")
            return other["token"]
    if known is None:
        logger.info("recheck: the content is recorded; later rechecks compare with it")
        return digest
    logger.warning("recheck: the content has changed although size and time have not: all stages are stale")
    return hashlib.sha256(f"{digest}{content}".encode()).hexdigest()


def _read(path: Path) -> dict[str, dict[str, str]]:
    """What earlier rechecks found: digest -> content and token; nothing, with a warning, where the file is damaged."""
    try:
        found = read_json(path)
        if all(isinstance(entry, dict) and {"content", "token"} <= entry.keys() for entry in found.values()):
            return found
        why = f"{path} is damaged: remove it"
    except FileNotFoundError:
        return {}
    except (OSError, DamagedFileError) as error:
        why = str(error)
    logger.warning("%s; what earlier rechecks found is not known, a run with --recheck records it anew", why)
    return {}
