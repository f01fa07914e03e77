"""Evaluates qualities on a benchmark of templates: as weights of their images, and by rejecting pairs of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from data_manifests.benchmarks.pairs import read_templates
from data_manifests.tables.evaluation import TEMPLATES
from pipeline.evaluation.images import read_embeddings, read_measure
from pipeline.evaluation.request import TemplateWeight
from training.evaluation.comparison import BenchmarkError, compare_templates, require_both_kinds, require_directions
from training.evaluation.evaluate import judge_counts
from training.evaluation.methods.kinds import UNWEIGHTED
from training.evaluation.templates import Templates, lowest_quality, measure_tar, scale_quality

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from data_manifests.benchmarks.pairs import TemplateList
    from pipeline.config.job import Job
    from training.evaluation.comparison import ComparisonScores
    from training.evaluation.evaluate import Options

    Qualities = Mapping[str, NDArray[np.floating[Any]]]


_WORST = (
    "pairs of templates are rejected by their worst image, so templates of many images go first even at random, whose "
    "area may lie far from 1"
)


@dataclass(frozen=True, kw_only=True)
class TemplatePairs:
    """The pairs of templates whose images have embeddings.

    Attributes:
        rows: where the images stand among those of the benchmark [R].
        template: of each image, int32 [R].
        medium: of each image, int32 [R].
        vectors: of each image, float32 [R, D]: unit embeddings times their `TemplateWeight`s.
        a: one template of every pair [P].
        b: the other.
        same: whether both are of one person, bool [P].
        left_out: pairs without an embedding on both sides.
        notes: what a reader of the report should know.
    """

    rows: NDArray[np.intp]
    template: NDArray[np.int32]
    medium: NDArray[np.int32]
    vectors: NDArray[np.float32]
    a: NDArray[np.int32]
    b: NDArray[np.int32]
    same: NDArray[np.bool_]
    left_out: int
    notes: list[str] = field(default_factory=list)

    @cached_property
    def templates(self) -> Templates:
        """The templates, pooled without a quality."""
        return Templates.pool(self.vectors, self.template, self.medium)

    @cached_property
    def similarity(self) -> NDArray[np.float32]:
        """Of the pairs of those templates, float32 [P]."""
        return self.templates.similarities(self.a, self.b)

    def compare(self, fmrs: Sequence[float]) -> ComparisonScores:
        """The scores by which pairs are rejected; their rows are those of `templates`."""
        require_directions(self.templates.units, "templates")
        ids = self.templates.ids
        a, b = np.searchsorted(ids, self.a), np.searchsorted(ids, self.b)
        return replace(compare_templates(self.similarity, a, b, self.same, fmrs), left_out=self.left_out)

    def lowest(self, qualities: Qualities) -> dict[str, NDArray[np.floating[Any]]]:
        """Method -> quality of `templates` [T], from those of the benchmark's images [N]."""
        return {name: lowest_quality(quality[self.rows], self.template) for name, quality in qualities.items()}

    def measure(self, qualities: Qualities, options: Options) -> pa.Table:
        """Pool by each quality, and without one, and compare.

        An image without a quality weighs nothing, as the worst one does.

        Args:
            qualities: method -> [N]; NaN where there is none.
            options: of the evaluation.

        Returns:
            The table `templates`, with benchmark and recogniser still null.
        """
        table: list[dict[str, Any]] = []
        genuine, impostors = int(self.same.sum()), int((~self.same).sum())
        status: dict[float, str] = {}
        for method, similarity in self._pool(qualities):
            for far, tar in measure_tar(similarity, self.same).items():
                errors = round((1 - tar) * genuine)
                # The first are pooled without a quality: a method that makes fewer errors must not lose its rank.
                found = status.setdefault(far, judge_counts(max(errors, 1), far * impostors, options))
                table.append({
                    "method": method, "far": far, "tar": tar, "genuine": genuine, "impostors": impostors,
                    "errors": errors, "status": found,
                })  # fmt: skip
        return TEMPLATES.to_arrow(table)

    def _pool(self, qualities: Qualities) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Method, and the similarity of the pairs [P] of templates that it pools."""
        yield UNWEIGHTED, self.similarity
        for method, quality in qualities.items():
            own = quality[self.rows]
            known = np.isfinite(own)
            if len(np.unique(own[known])) < 2:
                self.notes.append(
                    f"{method} gives all images the same quality, so it gives no weights and is left out of the true "
                    "accept rates"
                )
                continue
            weights = np.zeros(len(own))
            weights[known] = scale_quality(own[known], self.template[known])
            pooled = Templates.pool(self.vectors, self.template, self.medium, weights)
            yield method, pooled.similarities(self.a, self.b)


def read_template_pairs(job: Job, keys: NDArray[np.int32], weights: Sequence[TemplateWeight]) -> TemplatePairs:
    """Read a benchmark of templates and the embeddings of its images.

    An image without an embedding is in no template.

    Args:
        job: the benchmark with a recogniser.
        keys: of its images [N], ascending.
        weights: what unit embeddings are multiplied with.

    Raises:
        BenchmarkError: if no genuine or no impostor pair of templates is left, or a detector's score is no weight.
        TemplateError: if a list is damaged.
    """
    lists = read_templates(job.manifest)
    embeddings = read_embeddings(job.store, job.stages["embeddings"])
    rows = np.minimum(np.searchsorted(keys, lists.images.key), len(keys) - 1)
    listed = np.flatnonzero((keys[rows] == lists.images.key) & ~np.isnan(embeddings[rows, 0]))  # [R]
    rows = rows[listed]
    template = lists.images.template[listed]
    kept = np.isin(lists.a, template) & np.isin(lists.b, template)
    require_both_kinds(lists.same[kept], len(kept), "templates")
    vectors = embeddings[rows]
    if TemplateWeight.NORM in weights:
        vectors *= read_measure(job.store, job.stages["embeddings"], "norm")[rows, None].astype(np.float32)
    if TemplateWeight.DETECTOR in weights:
        if (lists.images.score < 0).any():
            raise BenchmarkError(
                "the detector gave a face a score below 0, which is no weight: leave detector out of --template-weights"
            )
        vectors *= lists.images.score[listed, None]
    return TemplatePairs(
        rows=rows,
        template=template,
        medium=lists.images.medium[listed],
        vectors=vectors,
        a=lists.a[kept],
        b=lists.b[kept],
        same=lists.same[kept],
        left_out=int((~kept).sum()),
        notes=[*_say_left_out(lists, len(listed), int((~kept).sum())), _WORST],
    )


def _say_left_out(lists: TemplateList, images: int, pairs: int) -> list[str]:
    """What has no embedding."""
    missing = len(lists.images.key) - images
    if not missing:
        return []
    return [f"{missing:,} images are left out, for want of an embedding, and with them {pairs:,} pairs of templates"]
