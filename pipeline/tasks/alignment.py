"""Photos of any size to aligned faces: the task before any data set that is not aligned yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import luigi

from data_manifests.storage.values import Number
from data_manifests.weights.registry import DETECTOR
from pipeline.alignment.job import AlignJob, AlignRequest, resolve_alignment
from pipeline.alignment.run import make_crops
from pipeline.config.parameters import TypedParameter
from pipeline.logs import one_message, set_up_logs
from pipeline.tasks.publish import WorkspaceParameter
from pipeline.tasks.stage import luigi_processes
from pipeline.tasks.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence


class AlignFaces(luigi.Task):
    """Cuts the face out of every photo, aligned to ArcFace's 112x112 template.

    `luigi --module pipeline AlignFaces --source photos/ --output photos_112 --workers 2`

    The crops have the paths of their photos. `photos_112.toml` beside them is a manifest for LabelAll, and
    `photos_112.alignment/alignment.parquet` says of every photo where its face is, or why it has no crop. The same
    command again aligns what is new or changed, and removes the crops of photos that are gone.
    """

    source = luigi.Parameter(default="", description="folder of photos, one sub-folder a person, or flat")
    dataset = luigi.Parameter(default="", description="instead of --source: a manifest whose images are not aligned")
    output = luigi.Parameter(default="", description="folder of the crops; templates have theirs")
    detector = luigi.Parameter(default=DETECTOR, description="face detector of models.toml")
    face = TypedParameter(
        Literal["largest", "central", "best"],
        default="largest",
        description="of several faces: largest (area, less twice the squared distance from the centre), central, best",
    )
    encoding = TypedParameter(Literal["jpeg", "png"], default="jpeg", description="of the crops: jpeg or png")
    min_score = TypedParameter(Number, default=0.6, description="the least certain face that counts, 0 to 1")
    longest_side = TypedParameter(int, default=640, description="photos are reduced to it to look for faces; pixels")
    workspace = WorkspaceParameter(default="", description="for manifests that lie there (FIQA_WORKSPACE)")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_up_logs()
        with one_message():
            self.job: AlignJob = resolve_alignment(
                AlignRequest(
                    source=self.source,
                    dataset=self.dataset,
                    output=self.output,
                    detector=self.detector,
                    face=self.face,
                    encoding=self.encoding,
                    min_score=self.min_score,
                    longest_side=self.longest_side,
                ),
                Path(self.workspace),
            )

    @property
    def resources(self) -> dict[str, int]:
        """It uses all processes."""
        return {"cpu": 1}

    def requires(self) -> Sequence[luigi.Task]:
        """The detector's weights."""
        luigi_processes()  # the processes that Luigi starts cannot ask its command line
        return [Weights.of(self.job.entry, self.job.weights)] if self.job.entry else []

    def complete(self) -> bool:
        """Whether the table is there and speaks of the photos as they are now."""
        with one_message():
            return self.job.is_finished()

    def run(self) -> None:
        """Align what is missing."""
        make_crops(self.job, luigi_processes(), self._report)

    def _report(self, share: float, text: str) -> None:
        """Show the state on Luigi's pages."""
        self.set_progress_percentage(round(100 * share))
        self.set_status_message(text)
