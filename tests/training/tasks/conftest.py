"""The tasks that train start from the sample's labels, as those of the pipeline do.

They stand here and not in tests/pipeline so that both halves of `make test` take as long.
"""

from __future__ import annotations

from tests.pipeline.conftest import labelled_sample, sample_copy, sample_weights

__all__ = ["labelled_sample", "sample_copy", "sample_weights"]
