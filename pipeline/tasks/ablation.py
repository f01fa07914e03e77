"""The rows of CLIB-FIQA's Table 4 and the sweep of its Figure 4: trained, then evaluated side by side."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

import luigi
from luigi.cmdline_parser import CmdlineParser

from data_manifests.tables.stages import Factor
from labelers.runtime.device import VISIBLE, choose_gpus
from pipeline.config.parameters import ChoiceParameter, IntParameter
from pipeline.logs import one_message
from pipeline.tasks.evaluation import EvaluateQuality
from pipeline.tasks.goals import DatasetParameter, WorkspaceParameter
from pipeline.tasks.stage import luigi_processes
from pipeline.tasks.training import Launch, TrainQuality

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_ADDED = (Factor.POSE, Factor.BLUR, Factor.LIGHTING, Factor.EXPRESSION, Factor.OCCLUSION)
"""The order in which Table 4 adds factors to naive quality fitting."""

ROWS = {
    "nqf": "--factors= --no-confidence",
    "merged": "--no-quality --score merged --no-confidence",
    **{
        f"nqf-{len(added)}-{added[-1].value}": f"--factors {','.join(added)} --no-confidence"
        for added in (_ADDED[: count + 1] for count in range(len(_ADDED)))
    },
    "calibrated": "",
}
"""Row of Table 4, from its first to its last -> what is switched: naive quality fitting (NQF), the merged-factor
quality (M-F), NQF with one factor more in every row, and all with confidence calibration (CC)."""


class AblationError(ValueError):
    """The ablation cannot be run as asked; says why and what to do."""


class TrainRow(TrainQuality):
    """Trains one row; `current` stays with whoever trains by TrainQuality."""

    seat = IntParameter(default=-1, significant=False, description="which of --gpus it has alone; -1: it has all")

    @property
    def resources(self) -> dict[str, int]:
        """One GPU, so that rows on others run at the same time, or the whole device."""
        return super().resources if self.seat < 0 else {f"gpu{self.seat}": 1}

    @property
    def launch(self) -> Launch:
        """On a GPU of its own a row sees that alone, and knows how many trainings share the cores of this machine."""
        if self.seat < 0:
            return super().launch
        return Launch(environment={VISIBLE: choose_gpus(self.gpus)[self.seat], "LOCAL_WORLD_SIZE": str(self.gpus)})

    def complete(self) -> bool:
        """Whether the trained model is there."""
        return self.trained

    def publish(self) -> None:
        """Leave `current` alone: every row has a run of its own."""


class Ablation(luigi.Task):
    """Trains the rows of CLIB-FIQA's Table 4, and one model for every beta of Figure 4, and evaluates them together.

    `luigi --module pipeline Ablation --dataset casia_webface --benchmarks xqlfw --betas 8,16,25,32 --device cuda`

    On several GPUs, `--device cuda --gpus 8 --workers 8`, eight rows are trained at the same time, each on one.
    """

    dataset = DatasetParameter(default="", description="name of a manifest, or path of a TOML file")
    benchmarks = luigi.Parameter(
        description="benchmarks: names of manifests, or paths of TOML files, separated by commas"
    )
    rows = luigi.Parameter(
        default=",".join(ROWS), description="rows of Table 4, separated by commas; none: the betas alone"
    )
    betas = luigi.Parameter(
        default="", description="also one model for each of these betas, separated by commas (Figure 4)"
    )
    baselines = luigi.Parameter(default="norm,random", description="further methods, as EvaluateQuality takes them")
    recognition = luigi.Parameter(
        default="", description="recognition networks of models.toml, separated by commas; empty: that of luigi.cfg"
    )
    limit = IntParameter(default=0, description="train on the labels of the first N images only")
    workspace = WorkspaceParameter(default="", description="folder of all outputs (FIQA_WORKSPACE)")
    recipe = ChoiceParameter(choices=["paper", "released"], default="paper", description="whose rules")
    tower = luigi.Parameter(default="RN50-quickgelu", description="image tower, by open_clip's name")
    pretrained = luigi.Parameter(default="openai", description="open_clip's tag or a file; none: random weights")
    seed = IntParameter(default=323, description="of random weights, order and mirroring")
    device = ChoiceParameter(choices=["cpu", "cuda"], default="cpu", significant=False, description="where")
    gpus = IntParameter(default=0, significant=False, description="train a row on each of so many GPUs at once; a "
        "single row, or on cpu, by so many processes of torchrun; 0: one without it")  # fmt: skip
    options = luigi.Parameter(default="", description="further words for training.train_quality, in every row")

    def trainings(self) -> dict[str, TrainRow]:
        """The training of every row by its name."""
        with one_message():
            words = choose_rows(self.rows, self.betas)
        shared = ("dataset", "limit", "workspace", "recipe", "tower", "pretrained", "seed", "device")
        settings = {name: getattr(self, name) for name in shared}
        gpus, rows = int(self.gpus), len(words)
        apart = self.device == "cuda" and gpus > 0 and rows > 1
        gpus = min(gpus, rows) if apart else gpus
        seats = [number % gpus if apart else -1 for number in range(rows)]
        return {
            row: TrainRow(options=f"{text} {self.options}".strip(), gpus=gpus, seat=seat, **settings)
            for (row, text), seat in zip(words.items(), seats, strict=True)
        }

    def requires(self) -> list[TrainRow]:
        """All rows; those that take the whole device, or the same GPU, follow each other."""
        rows = list(self.trainings().values())
        if CmdlineParser.get_instance() is not None:
            _compare_workers(len({row.seat for row in rows}), luigi_processes())
        return rows

    def evaluation(self) -> EvaluateQuality:
        """The evaluation of the rows, once they are trained."""
        models = [f"{row}=model:{task.folder}" for row, task in self.trainings().items()]
        return EvaluateQuality(
            benchmarks=self.benchmarks,
            recognition=self.recognition,
            methods=",".join([*models, *filter(None, [self.baselines])]),
            workspace=self.workspace,
        )

    def complete(self) -> bool:
        """Whether all rows are trained and evaluated."""
        return all(task.complete() for task in self.requires()) and self.evaluation().complete()

    def run(self) -> Iterator[EvaluateQuality]:
        """Evaluate the rows."""
        yield self.evaluation()


@functools.cache
def _compare_workers(rows: int, workers: int) -> None:
    """Say once what keeps GPUs idle."""
    if workers < rows:
        logger.warning("%d rows can train at once, but only %d do: give --workers %d", rows, workers, rows)


def choose_rows(rows: str, betas: str) -> dict[str, str]:
    """The words for training.train_quality by the name of the row.

    Args:
        rows: names of ROWS, by commas; `none` or nothing for none.
        betas: numbers above 0, by commas.

    Raises:
        AblationError: if a row is unknown, a beta is no such number, or nothing is asked for.
    """
    asked = [name for name in (word.strip() for word in rows.split(",")) if name and name != "none"]
    if unknown := [name for name in asked if name not in ROWS]:
        raise AblationError(f"--rows: there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    chosen = {name: ROWS[name] for name in asked}
    for word in filter(None, (word.strip() for word in betas.split(","))):
        try:
            beta = float(word)
        except ValueError:
            beta = 0.0
        if not 0.0 < beta < float("inf"):
            raise AblationError(f"--betas: {word!r} is not a number above 0")
        chosen[f"beta-{beta:g}"] = f"--beta {beta:g}"
    if not chosen:
        raise AblationError("nothing to train: name --rows or --betas")
    return chosen
