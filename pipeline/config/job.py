"""One invocation: a data set, its settings and its stages, resolved once and carried to every process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.image_folder import ImageFolder
from data_manifests.installation import find_missing_landmarker_library
from data_manifests.manifest import Centres, Format, Manifest, load_manifest
from data_manifests.recordio.record_file import RecordError, RecordFile
from data_manifests.storage.atomic import DiskFullError, RunLock, remove_leftovers, sha256_of
from data_manifests.weights.entry import EmbeddingOutput, Kind, MeshOutput
from data_manifests.weights.files import WeightsMissingError, fetch, sha256_of_entry
from data_manifests.weights.registry import load_registry
from labelers.anchors.head import load_head
from labelers.runtime.device import Device, choose_gpus
from labelers.runtime.precision import check_processor
from pipeline.config.catalogue import Inputs, build_stages
from pipeline.config.pixel_stages import PIXEL_STAGES
from pipeline.config.recheck import data_token
from pipeline.config.settings import ROLES, Settings, dataset, read_settings
from pipeline.storage.images import ImageSource
from pipeline.storage.store import RECEIPTS, Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from data_manifests.weights.entry import ModelEntry
    from pipeline.storage.fingerprint import StageSpec

logger = logging.getLogger(__name__)

WORKSPACE_VARIABLE = "FIQA_WORKSPACE"
_LOCK_VARIABLE = "FIQA_RUN"
"""Set by the process that holds locks to a JSON list of their folders: the processes it starts do not ask for them."""

ALIGNED = "aligned"
"""The folder of the workspace in which `fiqa label` keeps the faces of photos."""

SAMPLE = "sample"
"""The manifest of the embedded sample, which is made where it is needed."""

BYTES_A_ROW = {"index": 10, "blur": 11, "pose": 16, "factors": 15, "embeddings": 1030, "anchors": 13, "labels": 55}
"""Measured size of a row in Parquet; an embedding of 512 float16 does not compress."""

MEASURED_STAGES = ("index", *(stage.name for stage in PIXEL_STAGES))
"""The stages that need no person, so that benchmarks can have them too."""

_SAFETY = 1.2
_WORTH_SAYING = 10**9
_BYTES_AN_IMAGE = 500
"""An encoded face of 112x112 hardly has fewer bytes."""


class JobError(ValueError):
    """The data set cannot be labelled as asked; says why and what to do."""


def workspace_root() -> Path:
    """The folder that holds all outputs: FIQA_WORKSPACE, or `workspace` here."""
    return Path(os.environ.get(WORKSPACE_VARIABLE) or "workspace").absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A data set with everything that its stages need.

    Attributes:
        asked: the data set as it was asked for, for commands that are shown.
        recogniser: the run whose recogniser and class centres were asked for, likewise; empty: none.
        name: the folder's name in the workspace.
        manifest: the data set.
        limit: the first images only; 0 for all.
        settings: checked settings.
        models: role (pose, factors, recognition) -> entry of models.toml.
        stages: name -> stage.
        last: the stage that was asked for; that of the labels where none was.
        store: where tables lie.
    """

    asked: str
    recogniser: str
    name: str
    manifest: Manifest
    limit: int
    settings: Settings
    models: Mapping[str, ModelEntry]
    stages: Mapping[str, StageSpec]
    last: str
    store: Store

    def __hash__(self) -> int:
        return hash(self.token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.token == other.token

    @property
    def token(self) -> str:
        """What tells this job from others: where it writes, and the fingerprint of its labels."""
        return f"{self.store.root}:{self.stages['labels'].fingerprint}"

    @property
    def source(self) -> ImageSource:
        """Where workers read the images."""
        if self.manifest.image_root is not None:
            return ImageSource(folder=self.manifest.image_root)
        if self.manifest.format is Format.VERIFICATION:
            return ImageSource(bin_file=self.manifest.data_path)
        return ImageSource(record_file=self.manifest.data_path)


def resolve(  # noqa: PLR0913 - what a command says
    name_or_path: str,
    *,
    workspace: Path,
    limit: int = 0,
    recheck: bool = False,
    stage: str = "",
    gpus: int = 0,
    recogniser: str = "",
) -> Job:
    """Resolve a data set to a job.

    Args:
        name_or_path: name of a manifest or path of a TOML file; empty for `[dataset] name` of luigi.cfg.
        workspace: the folder that holds all outputs.
        limit: label the first images only; 0 for all.
        recheck: read all content and compare it with what was seen before.
        stage: the last stage that is wanted, where that is known: not every data set can have every stage.
        gpus: compute on so many GPUs, whatever [execution] says; 0: as it says.
        recogniser: the folder of a run of TrainRecognition, whose network and class centres are taken; empty: as
            [models] and [anchors] say.

    Raises:
        ManifestError, SettingsError, ModelsError, JobError: each names the file, the field and the remedy.
    """
    if limit < 0:
        raise JobError(f"--limit {limit}: give a number of images, or leave it out to label all")
    if gpus < 0:
        raise JobError(f"--gpus {gpus}: give a number of GPUs, or leave it out to compute as [execution] says")
    asked = name_or_path or dataset().name
    manifest = load_data_set(asked, workspace)
    manifest.require_images()
    if stage and stage not in MEASURED_STAGES:
        manifest.require_labelled()
    settings = read_settings(manifest.overrides(), gpus, recogniser)
    registry = load_registry()
    models = {role: registry.get(getattr(settings, role), *kinds) for role, kinds in ROLES.items()}
    folder = f"{manifest.name}-first-{limit}" if limit else manifest.name
    store = Store(root=workspace / folder)
    data = data_token(manifest, store.root / RECEIPTS, recheck=recheck)
    return Job(
        asked=asked,
        recogniser=recogniser,
        name=folder,
        manifest=manifest,
        limit=limit,
        settings=settings,
        models=models,
        stages=build_stages(_gather(manifest, data, limit, settings, models)),
        last=stage or "labels",
        store=store,
    )


def load_data_set(name_or_path: str, workspace: Path) -> Manifest:
    """Read a manifest, and make the embedded sample where that is meant.

    Raises:
        ManifestError, TomlFileError, SampleError: see `load_manifest` and `make_sample`.
    """
    if workspace.is_file():
        raise JobError(f"the workspace {workspace} is a file: name a folder, by {WORKSPACE_VARIABLE}")
    manifest = load_manifest(name_or_path, workspace=workspace)
    if crops := find_crops(manifest, workspace):
        logger.info("%s: the faces that were aligned from it, %s", name_or_path, crops)
        return load_manifest(str(crops), workspace=workspace)
    if manifest.name == SAMPLE:
        from data_manifests.sample import make_sample  # noqa: PLC0415 - OpenCV is loaded by who needs it

        make_sample(manifest.root)
    return manifest


def find_crops(manifest: Manifest, workspace: Path) -> Path | None:
    """The manifest of the faces that `fiqa label` aligned from a folder of photos, if it has."""
    file = workspace / ALIGNED / f"{manifest.name}.toml"
    if manifest.format is not Format.IMAGE_FOLDER or manifest.file == file or not file.is_file():
        return None
    source = re.match(r'# Aligned from ("(?:[^"\\]|\\.)*") by', file.read_text(errors="replace"))
    return file if source and json.loads(source[1]) == str(manifest.root) else None


def change_recogniser(job: Job, name: str) -> Job:
    """The same data set with another recogniser; everything that does not rest on its embeddings stays as it is.

    Class centres are then means, for a last layer that the settings name belongs to the recogniser that they name.

    Raises:
        RegistryError: if there is no recogniser of that name.
    """
    if name == job.models["recognition"].name:
        return job
    models = {**job.models, "recognition": load_registry().get(name, Kind.RECOGNITION)}
    settings = job.settings.model_copy(update={"recognition": name, "centres": Centres.MEAN, "head": None})
    inputs = _gather(job.manifest, job.stages["index"].data, job.limit, settings, models)
    return replace(job, settings=settings, models=models, stages=build_stages(inputs))


def _gather(manifest: Manifest, data: str, limit: int, settings: Settings, models: Mapping[str, ModelEntry]) -> Inputs:
    """What the stages are made from; `data` stands for the data set."""
    return Inputs(
        data=data,
        layout=manifest.format.value,
        limit=limit,
        settings=settings,
        models=models,
        hashes={entry.name: _hash_weights(entry) for entry in models.values()},
        head=_hash_head(settings),
    )


def _hash_weights(entry: ModelEntry) -> tuple[str, ...]:
    """SHA-256 of a network's files; one whose hash nobody published is fetched first, and its hash recorded."""
    try:
        return sha256_of_entry(entry)
    except WeightsMissingError:
        fetch(entry)
        return sha256_of_entry(entry)


def _hash_head(settings: Settings) -> str:
    """SHA-256 of the file of class centres; empty where they are means."""
    if settings.centres is not Centres.HEAD or settings.head is None:
        return ""
    if not settings.head.is_file():
        raise JobError(f"the class centres {settings.head} are not there: mend `head`, or set centres = mean")
    return sha256_of(settings.head)


def read_head(job: Job) -> NDArray[np.float32] | None:
    """The class centres [C, D] of a recogniser's last layer; None where they are means.

    Raises:
        HeadError: if the file does not hold, or not clearly, a matrix that fits the recogniser.
    """
    settings, output = job.settings, job.models["recognition"].output
    if settings.centres is not Centres.HEAD or settings.head is None or not isinstance(output, EmbeddingOutput):
        return None
    layout = settings.head_layout or None
    return load_head(settings.head, dimension=output.dimension, key=settings.head_tensor or None, layout=layout)


def require_head(job: Job, specs: Iterable[StageSpec]) -> None:
    """See to it before anything is computed that the class centres can be read, where they are still to be.

    Raises:
        HeadError: see `read_head`.
    """
    if any(spec.name == "centres" and not job.store.is_complete(spec) for spec in specs):
        read_head(job)


def require_landmarker(job: Job, specs: Iterable[StageSpec]) -> None:
    """See to it before anything is computed that this machine can open MediaPipe's FaceLandmarker, where it is needed.

    Raises:
        JobError: if the system lacks a library; names its packages.
    """
    missing = any(spec.name == "pose" and not job.store.is_complete(spec) for spec in specs)
    if missing and needs_landmarker(job) and (fault := find_missing_landmarker_library()):
        raise JobError(f"{fault}; or take another network for the pose, such as --models-pose face_mesh")


def needs_landmarker(job: Job) -> bool:
    """Whether MediaPipe's FaceLandmarker runs on this machine."""
    entry = job.models["pose"]
    return not job.settings.dask and entry.kind is Kind.LANDMARKS and not isinstance(entry.output, MeshOutput)


def lock_workspace(job: Job) -> None:
    """Hold the data set's folder until this process ends.

    Raises:
        LockedError: if another run holds it; says which.
    """
    lock_folder(job.store.root)


def lock_folder(folder: Path) -> None:
    """Hold a folder of the workspace until this process ends, and remove what killed runs left half-written in it.

    Raises:
        LockedError: if another run holds it; says which.
    """
    held = json.loads(os.environ.get(_LOCK_VARIABLE, "[]"))
    if str(folder) in held:
        return
    lock = RunLock(folder, f"set {WORKSPACE_VARIABLE} to another folder")
    lock.acquire(" ".join(sys.argv))
    remove_leftovers(folder)
    os.environ[_LOCK_VARIABLE] = json.dumps([*held, str(folder)])
    _held.append(lock)


_held: list[RunLock] = []
"""Locks live as long as the process."""


def estimate_images(job: Job) -> int:
    """How many images a job has, before its index is read: what the manifest says, or what the data can hold."""
    manifest = job.manifest
    if known := job.limit or manifest.images:
        return known
    if manifest.image_root is not None:
        return len(ImageFolder(manifest.image_root))
    if manifest.format is Format.VERIFICATION:
        return 2 * manifest.pairs if manifest.pairs else manifest.data_path.stat().st_size // _BYTES_AN_IMAGE
    with contextlib.suppress(RecordError, OSError), RecordFile(manifest.data_path) as records:
        return len(records)
    return 0  # what is wrong with the file is said when it is indexed


def check_space(job: Job, specs: Iterable[StageSpec]) -> None:
    """Compare the space that missing stages need with what is free.

    Raises:
        DiskFullError: if it does not fit; names both figures and the remedy.
    """
    missing = [spec.name for spec in specs if not job.store.is_complete(spec)]
    images = estimate_images(job)
    needed = int(sum(BYTES_A_ROW.get(name, 0) for name in missing) * images * _SAFETY)
    free = free_bytes(job.store.root)
    if needed > free:
        raise DiskFullError(
            f"{job.store.root} needs about {needed / 1e9:.1f} GB for {', '.join(missing)} of {images:,} images, but "
            f"{free / 1e9:.1f} GB are free: free some, or set FIQA_WORKSPACE to a folder on a larger disk"
        )
    if needed > _WORTH_SAYING:
        logger.info("about %.1f GB will be written, %.1f GB are free", needed / 1e9, free / 1e9)


def require_device(job: Job) -> None:
    """See to it before anything is computed that this machine can compute as asked; Dask's workers see for themselves.

    Raises:
        ProviderError: if it has fewer GPUs, or its processor lacks the instructions; names what to set.
    """
    if not job.settings.dask:
        check_processor(job.settings.precision)
        if job.settings.device is Device.CUDA:
            choose_gpus(job.settings.gpus)


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk on which a folder lies, or will lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
