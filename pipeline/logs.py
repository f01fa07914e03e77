"""Logging for the command line: one plain line an event, to standard error."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler

PACKAGES = ("pipeline", "labelers", "training", "data_manifests")


def set_up_logs(level: int = logging.INFO) -> None:
    """Show what the factory's own packages say; once a process."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(RichHandler(console=Console(stderr=True), show_path=False, log_time_format="%H:%M:%S"))
            logger.setLevel(level)
            logger.propagate = False
