"""The labelling factory: Luigi tasks over pure measures, and the command line beside them.

Importing this package loads neither torch nor ONNX Runtime nor MediaPipe: planning is quick, and workers load what
they need. Processes are spawned, never forked, because CUDA and threads do not survive a fork.
"""

import multiprocessing

multiprocessing.set_start_method("spawn", force=True)

from pipeline.tasks.derived import AnchorRange, Anchors, Centres, Labels  # noqa: E402 - after the start method
from pipeline.tasks.goals import AnchorsAll, BlurAll, EmbeddingsAll, FactorsAll, LabelAll, PoseAll  # noqa: E402
from pipeline.tasks.measures import Blur, Embeddings, Factors, Index, Pose  # noqa: E402
from pipeline.tasks.training import TrainFactorNet  # noqa: E402

__all__ = [
    "AnchorRange",
    "Anchors",
    "AnchorsAll",
    "Blur",
    "BlurAll",
    "Centres",
    "Embeddings",
    "EmbeddingsAll",
    "Factors",
    "FactorsAll",
    "Index",
    "LabelAll",
    "Labels",
    "Pose",
    "PoseAll",
    "TrainFactorNet",
]
