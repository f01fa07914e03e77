"""An alignment as the command line asks for it, resolved and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.manifest import TEMPLATE_LISTS, Format, Manifest, load_manifest
from data_manifests.storage.atomic import sha256_of
from data_manifests.storage.toml_file import TomlFileError
from data_manifests.weights.entry import Kind, ModelEntry
from data_manifests.weights.files import sha256_of_entry
from data_manifests.weights.registry import load_registry
from pipeline.alignment.crops import AlignError, AlignFolder, AlignSettings, Encoding

if TYPE_CHECKING:
    import polars as pl

    from pipeline.alignment.plan import Survey

# Polars, and with it pipeline.alignment.plan, is loaded by who needs it.

LOOSE_FOLDER = "loose_crop"
"""Where the photos of templates lie, below the root (InsightFace's IJB test suite)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignRequest:
    """An alignment as the command line asks for it; see AlignFaces."""

    source: str
    dataset: str
    output: str
    detector: str
    face: str
    encoding: str
    min_score: float
    longest_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignJob:
    """One alignment, resolved.

    Attributes:
        photos: the folder of the photos, absolute.
        folder: where the results go.
        settings: what decides the crops.
        entry: the detector; None where landmarks are given.
        weights: SHA-256 of its files.
        manifest: the data set whose photos they are, where a manifest was named.
    """

    photos: Path
    folder: AlignFolder
    settings: AlignSettings
    entry: ModelEntry | None
    weights: tuple[str, ...]
    manifest: Manifest | None

    @property
    def made_from(self) -> str:
        """The settings as they stand in the table."""
        return json.dumps(self.settings.describe(), sort_keys=True)

    @property
    def has_landmarks(self) -> bool:
        """Whether the landmarks come with the photos."""
        return self.entry is None

    def list_photos(self) -> pl.DataFrame:
        """Every photo; see `pipeline.alignment.plan.Survey`."""
        from pipeline.alignment.plan import list_folder, list_templates  # noqa: PLC0415

        if self.has_landmarks and self.manifest:
            return list_templates(self.manifest, self.photos)
        return list_folder(self.photos, self.settings.encoding)

    def survey(self) -> Survey:
        """How far the work is."""
        from pipeline.alignment.plan import survey  # noqa: PLC0415

        return survey(self.folder, self.list_photos(), self.made_from)

    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        named = self.has_landmarks or self.folder.manifest.is_file()
        return named and self.folder.table.is_file() and self.survey().finished


def resolve_alignment(wish: AlignRequest, workspace: Path) -> AlignJob:
    """Resolve what was asked for.

    Raises:
        AlignError, ManifestError, RegistryError: each names what is wrong and what to do.
    """
    if bool(wish.source) == bool(wish.dataset):
        raise AlignError("name the photos: either --source FOLDER or --dataset NAME")
    manifest = load_manifest(wish.dataset, workspace=workspace) if wish.dataset else None
    photos = _find_photos(manifest) if manifest else Path(wish.source).expanduser().resolve()
    if not photos.is_dir():
        raise AlignError(f"{photos} is no folder of photos: correct --source, or the manifest's root")
    given = manifest is not None and manifest.format is Format.TEMPLATES
    folder = AlignFolder(crops=_find_output(wish, manifest if given else None))
    entry = None if given else load_registry().get(wish.detector, Kind.DETECTOR)
    weights = sha256_of_entry(entry) if entry else ()
    if not 0 < wish.min_score < 1 or wish.longest_side < 32:
        raise AlignError("--min-score lies between 0 and 1, --longest-side is at least 32 pixels")
    settings = AlignSettings(
        detector=f"{entry.name} {entry.version} {' '.join(weights)}" if entry else _hash_landmarks(manifest),
        face=wish.face,
        encoding=Encoding(wish.encoding),
        min_score=wish.min_score,
        longest_side=wish.longest_side,
    )
    job = AlignJob(photos=photos, folder=folder, settings=settings, entry=entry, weights=weights, manifest=manifest)
    _check_places(job)
    return job


def _find_photos(manifest: Manifest) -> Path:
    """The folder of a data set's photos."""
    if manifest.format is Format.TEMPLATES:
        return manifest.root / LOOSE_FOLDER
    if manifest.image_root is None or manifest.format is Format.WIDER_FACE:
        raise AlignError(
            f"the data set {manifest.name} ({manifest.file}) has the format {manifest.format}: photos are aligned from "
            "a folder, or from templates with their landmarks"
        )
    return manifest.image_root


def _find_output(wish: AlignRequest, templates: Manifest | None) -> Path:
    """The folder of the crops."""
    if not wish.output and not (templates and templates.image_root):
        raise AlignError("name the folder of the crops: --output FOLDER")
    output = Path(wish.output).expanduser() if wish.output else Path(str(templates and templates.image_root))
    if "$" in output.name or output.name.startswith("~") or not output.name.strip("."):
        raise AlignError(f"--output {wish.output}: a manifest cannot name this folder; choose another name")
    return output.parent.resolve() / output.name


def _hash_landmarks(manifest: Manifest | None) -> str:
    """Names the list of landmarks, which decides the crops as a detector does."""
    lists = sorted(manifest.root.glob(TEMPLATE_LISTS[1])) if manifest else []
    return " ".join(["landmarks", *(sha256_of(path) for path in lists)])


def _check_places(job: AlignJob) -> None:
    """Refuse folders in which photos and crops would mix, or in which somebody else's files lie."""
    photos, crops = job.photos.resolve(), job.folder.crops.resolve()
    if photos == crops or photos in crops.parents or crops in photos.parents:
        raise AlignError(f"--output {crops} and the photos {photos} lie within each other: name a folder apart")
    ours = job.folder.table.is_file() or bool(job.folder.plans())
    if not ours and crops.exists() and (not crops.is_dir() or any(crops.iterdir())):
        raise AlignError(f"--output {crops} holds files that no alignment made: name a new folder, or empty it")
    if job.folder.manifest.is_file() and not job.has_landmarks:
        try:
            fits = load_manifest(job.folder.manifest).root.resolve() == crops
        except TomlFileError as error:
            raise AlignError(f"{error}; the crops' manifest is to stand there: mend or move it") from error
        if not fits:
            raise AlignError(
                f"{job.folder.manifest} is the manifest of another folder: move it, or name another --output"
            )
