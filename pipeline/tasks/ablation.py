"""The rows of CLIB-FIQA's Table 4 and the sweep of its Figure 4: trained, then evaluated side by side."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import luigi
from luigi.cmdline_parser import CmdlineParser

from data_manifests.tables.stages import Factor
from labelers.runtime.device import VISIBLE, choose_gpus
from pipeline.config.parameters import TypedParameter
from pipeline.logs import one_message
from pipeline.tasks.evaluation import EvaluateQuality
from pipeline.tasks.stage import luigi_processes
from pipeline.tasks.training import Launch, QualityTask, TrainQuality
from training.quality.config import Score

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_ADDED = (Factor.POSE, Factor.BLUR, Factor.LIGHTING, Factor.EXPRESSION, Factor.OCCLUSION)
"""The order in which Table 4 adds factors to naive quality fitting."""

ROWS: dict[str, dict[str, Any]] = {
    "nqf": {"factors": (), "confidence": False},
    "merged": {"quality": False, "score": Score.MERGED, "confidence": False},
    **{
        f"nqf-{len(added)}-{added[-1].value}": {"factors": added, "confidence": False}
        for added in (_ADDED[: count + 1] for count in range(len(_ADDED)))
    },
    "calibrated": {},
}
"""Row of Table 4, from its first to its last -> what is switched: naive quality fitting (NQF), the merged-factor
quality (M-F), NQF with one factor more in every row, and all with confidence calibration (CC)."""


class AblationError(ValueError):
    """The ablation cannot be run as asked; says why and what to do."""


class TrainRow(TrainQuality):
    """Trains one row; `current` stays with whoever trains by TrainQuality."""

    seat = TypedParameter(
        int, default=-1, significant=False, description="which of --gpus it has alone; -1: it has all"
    )

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


class Ablation(QualityTask):
    """Trains the rows of CLIB-FIQA's Table 4, and one model for every beta of Figure 4, and evaluates them together.

    `luigi --module pipeline Ablation --dataset casia_webface --benchmarks xqlfw --betas 8,16,32,64,128 --device cuda`

    On several GPUs, `--device cuda --gpus 8 --workers 8`, eight rows are trained at the same time, each on one.
    """

    benchmarks = luigi.Parameter(
        description="benchmarks: manifests by name or TOML file, or the data themselves, separated by commas"
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
    gpus = TypedParameter(
        int,
        default=0,
        significant=False,
        description="train a row on each of so many GPUs at once; a single row, or on cpu, by so many processes of "
        "torchrun; 0: one without it",
    )

    def trainings(self) -> dict[str, TrainRow]:
        """The training of every row by its name."""
        with one_message():
            changes = choose_rows(self.rows, self.betas)
        shared = {name: getattr(self, name) for name, _ in QualityTask.get_params() if name != "gpus"}
        gpus, rows = int(self.gpus), len(changes)
        apart = self.device == "cuda" and gpus > 0 and rows > 1
        gpus = min(gpus, rows) if apart else gpus
        seats = [number % gpus if apart else -1 for number in range(rows)]
        return {
            row: TrainRow(gpus=gpus, seat=seat, **shared | change)
            for (row, change), seat in zip(changes.items(), seats, strict=True)
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


def choose_rows(rows: str, betas: str) -> dict[str, dict[str, Any]]:
    """The settings that a row changes, by its name.

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
        chosen[f"beta-{beta:g}"] = {"beta": beta}
    if not chosen:
        raise AblationError("nothing to train: name --rows or --betas")
    return chosen
