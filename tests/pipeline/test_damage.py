"""A finished workspace that is damaged: the same command mends it, or says in one line which file, and what to do.

`python -m benchmarks.faults` tries every damage at every stage; here each run has another damage at every stage.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from benchmarks.faults import ONCE, PLACES, SHARDS, STAGES, Damage, label, read_shards
from data_manifests.storage.shard_file import DamagedShardError
from pipeline.storage.integrity import compare
from tests.pipeline.shown import job_of

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.job import Job
    from tests.pipeline.conftest import Factory

BY_NAME = {damage.name: damage for damage in (*SHARDS, *PLACES, *ONCE)}
SEEN_BY_FOOTERS = [damage for damage in SHARDS if not damage.options and not damage.before_labels]
RECEIPTS = [damage for damage in PLACES if damage.name.startswith(("receipt ", "made_from", "shards.log"))]
FOLDERS = [damage for damage in PLACES if damage not in RECEIPTS]


def damage_all(workspace: Path, damages: list[Damage], offset: int) -> None:
    """Damage every stage, each in another way."""
    for number, stage in enumerate(STAGES):
        damages[(number + offset) % len(damages)].apply(workspace / "sample", stage)


def test_shards_that_are_damaged_are_set_aside_and_made_again(labelled_sample: Factory, sample_copy: Factory) -> None:
    whole = read_shards(labelled_sample.workspace / "sample")
    damage_all(sample_copy.workspace, SEEN_BY_FOOTERS, 0)
    status = sample_copy.command("status")
    assert "damaged: run its" in status.stdout
    done = label(sample_copy.workspace)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert read_shards(sample_copy.workspace / "sample") == whole
    aside = [path.name for path in (sample_copy.workspace / "sample" / "_damaged").iterdir()]
    assert len(aside) == done.stderr.count("is made again") >= 7
    assert "damaged: run" not in sample_copy.command("status").stdout


@pytest.mark.parametrize(("damages", "offset"), [(FOLDERS, 0), (RECEIPTS, 0)])
def test_what_lies_beside_the_shards_is_set_aside_or_left_out(
    labelled_sample: Factory, sample_copy: Factory, damages: list[Damage], offset: int
) -> None:
    damage_all(sample_copy.workspace, damages, offset)
    assert "Traceback" not in sample_copy.command("status").stderr
    done = label(sample_copy.workspace)
    assert done.returncode == 0, done.stderr
    assert read_shards(sample_copy.workspace / "sample") == read_shards(labelled_sample.workspace / "sample")


@pytest.mark.parametrize(("name", "stage"), [("values edited before labels", "blur"), ("pages zeroed", "embeddings")])
def test_a_recheck_and_the_doctor_find_what_footers_do_not_tell(
    labelled_sample: Factory, sample_copy: Factory, name: str, stage: str
) -> None:
    """Labels that were made of such values are made again too."""
    whole = read_shards(labelled_sample.workspace / "sample")
    BY_NAME[name].apply(sample_copy.workspace / "sample", stage)
    if BY_NAME[name].before_labels:
        shutil.rmtree(sample_copy.workspace / "sample" / "labels")
        assert label(sample_copy.workspace).returncode == 0
        assert read_shards(sample_copy.workspace / "sample") != whole  # nothing compares contents unasked
    told = sample_copy.command("doctor", check=False, COLUMNS="1000")
    assert told.returncode == 1
    assert "its content is not what was written" in told.stdout
    assert label(sample_copy.workspace, "--recheck").returncode == 0
    assert read_shards(sample_copy.workspace / "sample") == whole
    assert "1 of 1, " in sample_copy.command("status").stdout


@pytest.mark.parametrize("name", ["other keys, then read", "pages zeroed, then read"])
def test_what_only_reading_tells_never_enters_the_labels(
    labelled_sample: Factory, sample_copy: Factory, name: str
) -> None:
    BY_NAME[name].apply(sample_copy.workspace / "sample", "blur")
    shutil.rmtree(sample_copy.workspace / "sample" / "labels")
    done = label(sample_copy.workspace)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is made again") == 1
    assert read_shards(sample_copy.workspace / "sample") == read_shards(labelled_sample.workspace / "sample")


def test_a_file_that_is_damaged_again_and_again_ends_the_run(sample_copy: Factory) -> None:
    folder = sample_copy.workspace / "sample"
    BY_NAME["other keys, then read"].apply(folder, "blur")
    shutil.rmtree(folder / "labels")
    (folder / "_damaged").mkdir()
    fingerprint = (folder / "blur" / "current").resolve().name
    for number in range(3):
        (folder / "_damaged" / f"blur-{fingerprint}-shard-00000.parquet.{number}").touch()
    done = label(sample_copy.workspace)
    assert done.returncode == 30
    assert "its keys are not those of the index): run the task that makes it again with --recheck" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lock_that_is_none_is_named(sample_copy: Factory) -> None:
    folder = sample_copy.workspace / "sample"
    BY_NAME["`.lock` a folder"].apply(folder, "")
    shutil.rmtree(folder / "labels")
    done = label(sample_copy.workspace)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if str(folder / ".lock") in line] == done.stderr.splitlines()
    assert "remove what is no folder or lock" in done.stderr


def test_keys_are_compared_in_every_read(copied_job: Job) -> None:
    store, stages = copied_job.store, copied_job.stages
    for name in ("blur", "pose", "factors", "embeddings", "anchors", "labels"):
        assert store.read(stages[name], 0, ["status"]).column_names == ["status"]
        BY_NAME["other keys"].apply(store.root, name)
        # As before hashes were kept, when no size was known either.
        (store.receipts(stages[name]) / "shards.log").unlink()
        with pytest.raises(DamagedShardError, match="its keys are not those of the index"):
            store.read(stages[name], 0, ["status"])


def test_shards_of_earlier_versions_have_no_hash_and_that_is_said(sample_copy: Factory) -> None:
    for path in (sample_copy.workspace / "sample").glob("_receipts/*/*/shards.log"):
        path.unlink()
    job = job_of(sample_copy)
    found = compare(job.store, job.stages.values(), record=False)
    assert (found.shards, found.unknown, found.faults) == (0, 9, ())
    first = label(sample_copy.workspace, "--recheck")
    assert "9 shards were written without a hash; it is recorded now" in first.stderr
    second = label(sample_copy.workspace, "--recheck")
    assert "9 shards hold what was written" in second.stderr
