"""The labelling factory: Luigi tasks over pure measures, and the command line beside them.

Importing this package loads neither torch nor ONNX Runtime nor MediaPipe: planning is quick, and workers load what
they need. Processes are spawned, never forked, because CUDA and threads do not survive a fork.
"""

import multiprocessing
import os

multiprocessing.set_start_method("spawn", force=True)

WORKER_VARIABLE = "FIQA_WORKER"
"""Set for processes that compute parts: they need no tasks, and without Luigi they start in a third of the time."""

if WORKER_VARIABLE not in os.environ:
    from pipeline.tasks.derived import AnchorRange, Anchors, Centres, Labels
    from pipeline.tasks.goals import AnchorsAll, BlurAll, EmbeddingsAll, FactorsAll, LabelAll, PoseAll
    from pipeline.tasks.measures import Blur, Embeddings, Factors, Index, Pose
    from pipeline.tasks.training import TrainFactorNet, TrainQuality

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
        "TrainQuality",
    ]
