"""`score`: scores of images by a trained model, as `python -m training.score` makes them."""

from __future__ import annotations

import subprocess
import sys

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(score)


def score(context: typer.Context) -> None:
    """Score images by a trained model: --checkpoint RUN_OR_FILE --input FOLDER|IMAGE|REC|BIN --output scores.parquet.

    Also --device cuda, --flip-average, --batch N and --threads N: `python -m training.score --help` explains them.

    Example: fiqa score --checkpoint workspace/sample/quality_model/current --input faces --output scores.parquet
    """
    command = [sys.executable, "-m", "training.score", *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
