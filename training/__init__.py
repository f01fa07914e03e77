"""Training, scoring and evaluation in PyTorch; nothing here knows how the labels were made."""

import data_manifests as data_manifests  # sees to it that no library reports its use
