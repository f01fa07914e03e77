"""Pure measures of face images: arrays in, named columns out."""

import data_manifests as data_manifests  # sees to it that no library reports its use
