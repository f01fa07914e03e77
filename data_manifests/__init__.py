"""What the data and the weights are, and how they are read: the ground the other packages stand on."""

import os
import sys

from data_manifests.installation import require_installation

# ONNX Runtime reports its use over the network from version 1.29 on, with the names of files and graphs, unless this is
# set before it is loaded. Every package of this project imports this one first; who wants to report sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# PyTorch's threads wait for each other by looking again and again, for milliseconds. Beside another busy process that
# takes the core from the thread that is waited for: a training on two cores was 6 times slower. Microseconds
# cost nothing where the cores are free (benchmarks/busy_core.py). Read when PyTorch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# OpenVINO reports its use when it is imported, wherever it finds this package, which it does without if it must.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

require_installation()
