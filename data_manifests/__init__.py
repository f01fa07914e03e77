"""What the data and the weights are, and how they are read: the ground the other packages stand on."""

import os
import sys

from data_manifests.installation import require_installation

# ONNX Runtime reports its use over the network from version 1.29 on, with the names of files and graphs, unless this is
# set before it is loaded. Every package of this project imports this one first; who wants to report sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# OpenVINO reports its use when it is imported, wherever it finds this package, which it does without if it must.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

require_installation()
