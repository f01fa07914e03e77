"""`make bench`: the measurements that need nothing but this machine, one after the other."""

from __future__ import annotations

import subprocess
import sys

SCRIPTS = (
    "benchmarks.bench_cpbd",
    "benchmarks.labels_speed",
    "benchmarks.denormals",
    "benchmarks.nearest_speed",
    "benchmarks.error_reject_speed",
    "benchmarks.all_pairs_speed",
    "benchmarks.train_speed",
    "benchmarks.recognition_speed",
)

for script in SCRIPTS:
    print(f"\n=== {script}", flush=True)
    subprocess.run([sys.executable, "-m", script, *sys.argv[1:]], check=True)
