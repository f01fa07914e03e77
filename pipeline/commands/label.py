"""`label`: from photos or aligned faces to labels and their page, in one command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from luigi.cmdline_parser import CmdlineParser

from data_manifests.image_folder import ImageFileError, ImageFolder, ImageFolderError
from data_manifests.manifest import Format, load_manifest
from pipeline.commands.common import console
from pipeline.config.job import ALIGNED, JobError, load_data_set, workspace_root
from pipeline.label_report.output import STAGE as REPORT
from pipeline.storage.store import CURRENT, PAGE

if TYPE_CHECKING:
    from data_manifests.manifest import Manifest

_LOOKED_AT = 25
"""Images of a folder by whose sizes it is told whether they are aligned."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("label", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(label)


def label(
    context: typer.Context,
    place: Annotated[str, typer.Argument(help="A folder of photos or of aligned faces, a .rec, or a manifest.")],
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = os.cpu_count() or 1,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Label photos or aligned faces, and make the page that shows them.

    Photos of any size are aligned first, into the workspace. Every option of `luigi --module pipeline LabelAll` may
    follow, such as --labels-blur-hazy 0.3.

    Example: fiqa label my_photos --open
    """
    manifest = load_manifest(place, workspace=workspace_root())
    _check_options(place, context.args)
    if size := find_unaligned(manifest):
        crops = workspace_root() / ALIGNED / manifest.name
        console.print(f"{place}: photos of another size than 112 x 112, such as {size}: their faces are aligned first")
        _run("AlignFaces", "--source", str(manifest.root), "--output", str(crops), "--workers", str(workers))
        place = f"{crops}.toml"
        manifest = load_data_set(place, workspace_root())
        try:
            ImageFolder(manifest.root)
        except ImageFolderError:
            raise JobError(f"{crops}: no face was found in the photos, so there is nothing to label") from None
    _run("LabelAll", "--dataset", place, "--workers", str(workers), *context.args)
    page = workspace_root() / manifest.name / REPORT / CURRENT / PAGE
    if show and page.is_file():
        typer.launch(str(page))


def _check_options(place: str, options: list[str]) -> None:
    """See whether LabelAll takes the options, before photos are aligned for hours."""
    from pipeline.tasks.publish import LabelAll  # noqa: PLC0415 - Luigi's tasks are loaded by who needs them

    with CmdlineParser.global_instance([LabelAll.__name__, "--dataset", place, *options]) as parser:
        parser.get_task_obj()


def find_unaligned(manifest: Manifest) -> str:
    """The size of a photo, where none of the images of a folder that are looked at is an aligned face; else nothing."""
    from labelers.faces import SIDE, DecodeError, decode, read_size  # noqa: PLC0415 - loads OpenCV

    if manifest.format is not Format.IMAGE_FOLDER:
        return ""
    folder = ImageFolder(manifest.root)
    sizes = []
    for path in folder.paths[:: max(1, len(folder) // _LOOKED_AT)][:_LOOKED_AT]:
        try:
            encoded = folder.read(path)
            width, height = read_size(encoded)
            if not width:
                height, width = decode(encoded).shape[:2]
        except (ImageFileError, DecodeError):
            continue
        if (width, height) == (SIDE, SIDE):
            return ""
        sizes.append(f"{width} x {height}")
    return sizes[0] if sizes else ""


def _run(task: str, *words: str) -> None:
    """Run a task of Luigi's, and end with it where it fails."""
    luigi = str(Path(sys.executable).with_name("luigi"))
    if code := subprocess.run([luigi, "--module", "pipeline", task, *words], check=False).returncode:
        raise typer.Exit(code)
