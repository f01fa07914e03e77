"""The labelling factory: Luigi tasks over pure measures, and the command line beside them.

Importing this package loads neither torch nor ONNX Runtime nor MediaPipe: planning is quick, and workers load what
they need. Processes are spawned, never forked, because CUDA and threads do not survive a fork.
"""

import multiprocessing
import os
from pathlib import Path

from data_manifests.installation import require_libraries
from pipeline.execution.contract import WORKER_VARIABLE

multiprocessing.set_start_method("spawn", force=True)


def _find_settings() -> None:
    """Take this project's luigi.cfg where the current folder has none, so that commands work from any folder.

    A file that LUIGI_CONFIG_PATH names lies over it, as it does over that of the current folder.
    """
    import luigi.configuration  # noqa: PLC0415 - workers do without Luigi

    shipped = Path(__file__).resolve().parent.parent / "luigi.cfg"
    if not Path("luigi.cfg").exists() and shipped.exists():
        luigi.configuration.add_config_path(str(shipped))
        if chosen := os.environ.get("LUIGI_CONFIG_PATH"):
            luigi.configuration.add_config_path(chosen)


def _take_command_line() -> None:
    """Know in a process of Luigi's what its command line says, as the process that started it does.

    A task that asks for others while it runs makes them there, and their settings are those of the command line.
    """
    import sys  # noqa: PLC0415 - workers do without

    from luigi.cmdline_parser import CmdlineParser  # noqa: PLC0415 - likewise

    spawned = "__mp_main__" in sys.modules and Path(sys.argv[0]).name in {"luigi", "__main__.py"}
    if spawned and "--module" in sys.argv and CmdlineParser.get_instance() is None:
        CmdlineParser._instance = CmdlineParser(sys.argv[1:])


require_libraries()

if WORKER_VARIABLE not in os.environ:
    _find_settings()

    from pipeline.tasks.ablation import Ablation
    from pipeline.tasks.alignment import AlignFaces
    from pipeline.tasks.derived import AnchorRange, Anchors, Centres, Labels
    from pipeline.tasks.evaluation import EvaluateQuality
    from pipeline.tasks.label_report import LabelReport
    from pipeline.tasks.on_top import TrainOnTop
    from pipeline.tasks.pixels import PIXEL_TASKS, Index
    from pipeline.tasks.publish import PIXEL_PUBLISH_TASKS, AnchorsAll, LabelAll
    from pipeline.tasks.recognition import TrainRecognition
    from pipeline.tasks.train_all import TrainAll
    from pipeline.tasks.training import TrainFactorNet, TrainQuality

    __all__ = [
        "Ablation",
        "AlignFaces",
        "AnchorRange",
        "Anchors",
        "AnchorsAll",
        "Centres",
        "EvaluateQuality",
        "Index",
        "LabelAll",
        "LabelReport",
        "Labels",
        "TrainAll",
        "TrainFactorNet",
        "TrainOnTop",
        "TrainQuality",
        "TrainRecognition",
    ]
    _named = {task.__name__: task for task in (*PIXEL_TASKS.values(), *PIXEL_PUBLISH_TASKS.values())}
    globals().update(_named)
    __all__ += list(_named)
    _take_command_line()
