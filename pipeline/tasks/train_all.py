"""From images and whom they show to evaluated qualities, with no network that was trained elsewhere for anchors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import luigi

from labelers.runtime.device import Device
from pipeline.config.parameters import TypedParameter
from pipeline.tasks.evaluation import EvaluateQuality
from pipeline.tasks.on_top import TrainOnTop
from pipeline.tasks.publish import DatasetParameter, WorkspaceParameter
from pipeline.tasks.recognition import TrainRecognition
from pipeline.tasks.training import SCORER, TrainQuality

if TYPE_CHECKING:
    from collections.abc import Iterator


class TrainAll(luigi.Task):
    """Trains a recogniser, labels with it and its class centres, trains the qualities, and evaluates them together.

    `luigi --module pipeline TrainAll --dataset ms1mv2 --benchmarks lfw,cplfw --recognition-config
    recipes/cr_fiqa_l.toml --quality-config recipes/clib_paper.toml --device cuda`

    One after the other: TrainRecognition, LabelAll with the trained recogniser, TrainQuality and TrainOnTop, and
    EvaluateQuality. Each is there for later commands too; given again, the command goes on where it was stopped.
    """

    dataset = DatasetParameter(
        default="", description="name of a manifest, or path of a TOML file, a folder of images, a .rec"
    )
    benchmarks = luigi.Parameter(
        description="benchmarks: manifests by name or TOML file, or the data themselves, separated by commas"
    )
    recognition_config = luigi.Parameter(
        default="", description="file of settings of TrainRecognition, such as recipes/cr_fiqa_s.toml"
    )
    quality_config = luigi.Parameter(
        default="", description="file of settings of TrainQuality, such as recipes/clib_paper.toml"
    )
    recognition = luigi.Parameter(
        default="",
        description="further recognition networks whose errors judge, separated by commas; the trained one always does",
    )
    baselines = luigi.Parameter(
        default="norm,sobel,random", description="further methods, as EvaluateQuality takes them"
    )
    device = TypedParameter(Device, default=Device.CPU, significant=False, description="where: cpu or cuda")
    gpus = TypedParameter(int, default=0, significant=False, description="processes by torchrun; 0: one without it")
    workspace = WorkspaceParameter(default="", description="folder of all outputs (FIQA_WORKSPACE)")

    def requires(self) -> TrainRecognition:
        """The recogniser: what follows is named after its weights."""
        return TrainRecognition(config=self.recognition_config, **self._shared())

    def trainings(self) -> tuple[TrainQuality, TrainOnTop]:
        """The qualities, once the recogniser is trained."""
        run = str(self.requires().folder)
        quality = TrainQuality(config=self.quality_config, recogniser=run, **self._shared())
        return quality, TrainOnTop(dataset=self.dataset, recogniser=run, workspace=self.workspace)

    def evaluation(self) -> EvaluateQuality:
        """The evaluation, once they are trained too."""
        run = self.requires().folder
        quality, on_top = self.trainings()
        methods = [
            f"clib_fiqa=model:{quality.folder}",
            f"cr_fiqa=onnx:{run / SCORER}",
            f"on_top=on_top:{on_top.folder}",
        ]
        return EvaluateQuality(
            benchmarks=self.benchmarks,
            recognition=",".join(filter(None, [str(run), self.recognition])),
            methods=",".join(filter(None, [*methods, self.baselines])),
            workspace=self.workspace,
        )

    def complete(self) -> bool:
        """Whether everything is trained and evaluated."""
        trained = self.requires().complete() and all(task.complete() for task in self.trainings())
        return trained and self.evaluation().complete()

    def run(self) -> Iterator[list[luigi.Task]]:
        """Label and train, then evaluate."""
        yield list(self.trainings())
        yield [self.evaluation()]

    def _shared(self) -> dict[str, Any]:
        """What both trainings are asked for."""
        return {name: getattr(self, name) for name in ("dataset", "device", "gpus", "workspace")}

    def print_complete(self) -> None:
        """Say that nothing had to be done, and show what came out."""
        self.evaluation().print_complete()


TrainAll.event_handler(luigi.Event.DEPENDENCY_PRESENT)(TrainAll.print_complete)
