"""What `benchmarks.scale` starts, each in a process of its own.

python -m benchmarks.scale_steps fabricate | index | anchor_range | polars | recheck --dataset TOML
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import luigi
import numpy as np
import polars as pl

from data_manifests.tables.stages import TABLES, Status
from labelers.anchors.centres import accumulate
from labelers.anchors.similarities import certainty_ratio
from pipeline.config.job import Job, resolve, workspace_root
from pipeline.stages.anchors import centres_table
from pipeline.stages.columns import check_table, make_table
from pipeline.storage.integrity import compare
from pipeline.storage.shards import plan_shards
from pipeline.tasks.derived import AnchorRange
from pipeline.tasks.pixels import Index

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

UNREAD, FACELESS, ALONE = 1e-4, 0.01, 1e-3
"""Shares of images that do not decode, that show no face, and whose person has no other."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("fabricate", "index", "anchor_range", "polars", "recheck"))
    parser.add_argument("--dataset", required=True, help="a data set of benchmarks.make_ms1mv2")
    parser.add_argument("--dimension", type=int, default=16, help="of fabricated embeddings, which labels never read")
    parser.add_argument("--without", default="", help="a stage that is not fabricated")
    options = parser.parse_args()
    job = resolve(options.dataset, workspace=workspace_root())
    if options.step == "fabricate":
        fabricate(job, options.dimension, options.without)
    elif options.step == "polars":
        query(job)
    elif options.step == "recheck":
        checked = compare(job.store, job.stages["labels"].closure(), record=True)
        print(f"{checked.shards:,} shards hold what was written, {len(checked.faults)} do not")
    else:
        task = {"index": Index, "anchor_range": AnchorRange}[options.step].of(job, 1)
        if not luigi.build([task], local_scheduler=True, log_level="WARNING"):
            sys.exit(f"{options.step} failed")


def fabricate(job: Job, dimension: int, without: str) -> None:
    """Write random values of the true schemas where the stages that read pixels would have written theirs."""
    fabricated = [stage for stage in ("blur", "pose", "factors", "embeddings", "anchors") if stage != without]
    shards = plan_shards(job.manifest.images or 0)
    for number, piece in enumerate(shards):
        chance = np.random.default_rng((7, number))
        keys = np.arange(1 + piece.start, 1 + piece.stop, dtype=np.int32)
        measures = random_measures(keys, chance, dimension)
        for stage in fabricated:
            table = measures[stage]
            check_table(TABLES[stage], table, table["key"])
            job.store.write_shard(job.stages[stage], number, table, len(shards))
    people = np.arange(job.manifest.identities or 0)
    vectors = np.random.default_rng(7).normal(size=(len(people), dimension)).astype(np.float32)
    job.store.write_shard(job.stages["centres"], 0, centres_table(accumulate([(vectors, people)])), 1)
    for stage in (*fabricated, "centres"):
        job.store.remember(job.stages[stage])


def random_measures(keys: NDArray[np.int32], chance: np.random.Generator, dimension: int) -> dict[str, pa.Table]:
    """A table of random values for every stage that the labels join, with the causes of nulls that real ones have."""
    count = len(keys)
    unread, faceless, alone = (chance.random(count) < share for share in (UNREAD, FACELESS, ALONE))

    def column(low: float, high: float, lacking: NDArray[np.bool_] = unread) -> NDArray[np.float32]:
        values = chance.uniform(low, high, count).astype(np.float32)
        return np.where(lacking, np.float32(np.nan), values)

    def causes(lacking: NDArray[np.bool_], cause: Status) -> list[str]:
        texts = np.where(lacking, cause.value, Status.OK.value).astype(object)
        texts[unread] = Status.DECODE_ERROR.value
        return list(texts)

    none = np.zeros(count, np.bool_)
    vectors = chance.normal(size=(count, dimension)).astype(np.float16)
    vectors[unread] = np.nan
    ccs, nnccs = column(-0.2, 0.95, unread | alone), column(0.1, 0.5, unread | alone)
    columns = {
        "blur": ({"cpbd": column(0, 1), "sobel": column(0.1, 1.2)}, causes(none, Status.OK)),
        "pose": (
            {name: column(-60, 60, unread | faceless) for name in ("yaw_deg", "pitch_deg", "roll_deg")},
            causes(faceless, Status.NO_FACE),
        ),
        "factors": (
            {name: column(0, 1) for name in ("p_obstructed", "p_exaggerated", "p_extreme_lighting")},
            causes(none, Status.OK),
        ),
        "embeddings": ({"embedding": vectors, "norm": column(5, 30)}, causes(none, Status.OK)),
        "anchors": (
            {"ccs": ccs, "nnccs": nnccs, "certainty_ratio": certainty_ratio(ccs, nnccs).astype(np.float32)},
            causes(alone, Status.SINGLE_IMAGE),
        ),
    }
    return {stage: make_table(TABLES[stage], keys, values, status) for stage, (values, status) in columns.items()}


def query(job: Job) -> None:
    """Filter the labels and group them, as a user does."""
    labels = pl.scan_parquet(job.store.root / "labels" / "current", glob=False)
    sharp = labels.filter((pl.col("status") == "ok") & (pl.col("blur") != "hazy"))
    groups = sharp.group_by("pose", "occlusion").agg(pl.len(), pl.col("quality").mean(), pl.col("cpbd").median())
    print(groups.sort("len").collect())


if __name__ == "__main__":
    main()
