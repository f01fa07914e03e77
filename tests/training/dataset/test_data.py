"""Labels and images are joined row by row, and what does not fit is one clear error."""

from __future__ import annotations

import pickle
import shutil
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_manifests.folds import Fold, fold_of
from data_manifests.recordio.record_file import RecordFile
from data_manifests.tables.stages import CLASSES, Factor
from labelers.faces import decode
from training.dataset.training_set import TrainingDataError, load_training_set, read_labels
from training.trainer.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.training.conftest import LabelledSample


@pytest.fixture(scope="module")
def faces_labels(labelled_faces: LabelledSample) -> Path:
    return labelled_faces.write_labels("data-labels")


def test_arrays_hold_what_polars_reads(faces_labels: Path) -> None:
    labels = read_labels(faces_labels)
    frame = pl.read_parquet(faces_labels / "*.parquet")
    assert labels.keys.tolist() == frame["key"].to_list()
    assert labels.fingerprint == "0123456789ab"
    assert np.isnan(labels.quality).tolist() == frame["quality"].is_null().to_list()
    assert np.nan_to_num(labels.quality, nan=-1).tolist() == frame["quality"].fill_null(-1).to_list()
    for place, factor in enumerate(Factor):
        names = [CLASSES[factor][code] if code >= 0 else None for code in labels.classes[:, place]]
        assert names == frame[factor.value].cast(pl.String).to_list()
        assert set(names) == {None, *CLASSES[factor]}


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical])
def test_classes_may_be_any_kind_of_text(faces_labels: Path, tmp_path: Path, kind: type[pl.DataType]) -> None:
    frame = pl.read_parquet(faces_labels / "*.parquet")
    frame = frame.with_columns(pl.col(factor.value).cast(pl.String).cast(kind) for factor in Factor)
    frame.sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / "labels.parquet")
    found, expected = read_labels(tmp_path / "labels.parquet"), read_labels(faces_labels)
    assert (found.classes == expected.classes).all()
    assert found.content == expected.content
    assert found.fingerprint == ""


def test_brackets_in_a_path_are_no_pattern(faces_labels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "faces [v2] *" / "labels"
    shutil.copytree(faces_labels, folder)
    assert read_labels(folder).content == read_labels(faces_labels).content
    assert len(read_labels(folder / "shard-00000.parquet")) == 128


def test_images_are_those_of_the_keys(labelled_faces: LabelledSample, faces_labels: Path) -> None:
    data = load_training_set(faces_labels, labelled_faces.record_file)
    assert data.left_out == {"unreadable": 1, "unlabelled": 0, "held out": 0}
    assert data.held_out is None
    assert len(data) == 255
    assert 256 // 3 not in data.rows
    records = RecordFile(labelled_faces.record_file)
    for row in (0, 100, 254):
        target = np.zeros((112, 112, 3), np.uint8)
        data.decode_into(target, row)
        assert (target == decode(records.read(int(data.labels.keys[data.rows[row]]))[1])).all()
    counted = data.counts()
    assert counted["quality"] == {"labelled": int(np.isfinite(data.quality).sum())}
    assert sum(counted["pose"].values()) == (data.classes[:, 2] >= 0).sum()


def test_rows_without_a_label_that_is_used_are_left_out(labelled_faces: LabelledSample, faces_labels: Path) -> None:
    image = labelled_faces.record_file
    whole = load_training_set(faces_labels, image)
    quality = load_training_set(faces_labels, image, factors=())
    pose = load_training_set(faces_labels, image, quality=False, factors=(Factor.POSE,))
    assert len(quality) == np.isfinite(whole.quality).sum() < len(whole)
    assert np.isfinite(quality.quality).all()
    assert quality.left_out["unlabelled"] == len(whole) - len(quality)
    assert len(pose) == (whole.classes[:, 2] >= 0).sum()
    assert (pose.classes[:, 2] >= 0).all()


def test_people_held_out_are_in_the_other_set_whole(labelled_faces: LabelledSample, faces_labels: Path) -> None:
    image, fold = labelled_faces.record_file, Fold(number=2, folds=5)
    whole, data = load_training_set(faces_labels, image), load_training_set(faces_labels, image, held_out=fold)
    held = data.held_out
    assert held is not None
    people = whole.labels.identities
    away = fold_of(people, 5) == 2
    assert 0 < away.sum() < len(people)
    assert held.rows.tolist() == [row for row in whole.rows if away[row]]
    assert data.rows.tolist() == [row for row in whole.rows if not away[row]]
    assert held.people == len(set(people[away]))
    assert not set(people[held.rows]) & set(people[data.rows])
    assert data.left_out["held out"] == len(held)
    records = RecordFile(image)
    for part in (data, held):
        np.testing.assert_array_equal(part.quality, whole.labels.quality[part.rows])
        np.testing.assert_array_equal(part.classes, whole.labels.classes[part.rows])
        target = np.zeros((112, 112, 3), np.uint8)
        part.decode_into(target, 5)
        assert (target == decode(records.read(int(whole.labels.keys[part.rows[5]]))[1])).all()


def test_images_of_nobody_known_are_never_held_out(labelled_faces: LabelledSample, tmp_path: Path) -> None:
    """In a folder, images that lie beside the people's folders are of nobody known."""
    root, encoded = tmp_path / "images", [stored for _, _, stored in RecordFile(labelled_faces.record_file).images()]
    for place in ("a/1.jpg", "b/1.jpg", "c/1.jpg", "x.jpg", "y.jpg"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(encoded[0])
    table = labelled_faces.draw(5, 3)
    people = [0, 1, 2, -1, -1]
    for name, values in (("key", range(1, 6)), ("identity", people)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int32()))
    status = ["ok"] * 5
    table = table.set_column(table.column_names.index("status"), "status", pa.array(status))
    table = table.set_column(table.column_names.index("quality"), "quality", pa.array([0.5] * 5, pa.float32()))
    pq.write_table(table, tmp_path / "labels.parquet")
    folds = fold_of(np.arange(3, dtype=np.int32), 5).tolist()
    data = load_training_set(tmp_path / "labels.parquet", root, held_out=Fold(number=folds[0], folds=5))
    assert data.held_out is not None
    assert data.held_out.rows.tolist() == [row for row in range(3) if folds[row] == folds[0]]
    assert {3, 4} <= set(data.rows)


def test_every_row_says_why_it_is_not_learned_from(labelled_faces: LabelledSample, tmp_path: Path) -> None:
    table = labelled_faces.draw(60, 4)
    status = ["ok"] * 60
    status[5], status[6], status[40] = "no_face", "decode_error", "wrong_size"
    status[50] = "no_face+single_image"
    table = table.set_column(table.column_names.index("status"), "status", pa.array(status))
    quality = [None if row in (5, 10, 50) else 0.5 for row in range(60)]
    table = table.set_column(table.column_names.index("quality"), "quality", pa.array(quality, pa.float32()))
    pq.write_table(table, tmp_path / "labels.parquet")
    place, image = tmp_path / "labels.parquet", labelled_faces.record_file
    one, two = (fold_of(table["identity"].to_numpy()[[0, 59]], 4)).tolist()
    assert one != two
    data = load_training_set(place, image, factors=(), held_out=Fold(number=two, folds=4))
    wanted = ["ok"] * 32 + ["held_out"] * 28
    wanted[5] = wanted[10] = wanted[50] = "no_label"
    wanted[6], wanted[40] = "decode_error", "wrong_size"
    assert data.status().to_pylist() == wanted
    assert data.left_out == {"unreadable": 2, "unlabelled": 3, "held out": 26}
    assert data.status().to_pylist().count("ok") == len(data)
    plain = load_training_set(place, image)
    assert plain.status().to_pylist() == [text if text in ("decode_error", "wrong_size") else "ok" for text in status]


def test_a_fold_without_anybody_is_an_error(labelled_faces: LabelledSample, tmp_path: Path) -> None:
    labels = tmp_path / "labels.parquet"
    pq.write_table(labelled_faces.draw(20, 0), labels)  # one person
    only = int(fold_of(np.zeros(1, np.int32), 3)[0])
    with pytest.raises(TrainingDataError, match="no row has an image"):
        load_training_set(labels, labelled_faces.record_file, held_out=Fold(number=only, folds=3))
    with pytest.raises(TrainingDataError, match=r"nobody of fold ./3 has an image"):
        load_training_set(labels, labelled_faces.record_file, held_out=Fold(number=(only + 1) % 3, folds=3))


def test_whom_an_image_shows_is_part_of_the_content(labelled_faces: LabelledSample, tmp_path: Path) -> None:
    table = labelled_faces.draw(40, 2)
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(_stranger(table), tmp_path / "b.parquet")
    assert read_labels(tmp_path / "a.parquet").content != read_labels(tmp_path / "b.parquet").content


def test_a_folder_of_images_gives_the_same_pixels(labelled_faces: LabelledSample, tmp_path: Path) -> None:
    root = tmp_path / "images"
    keys = []
    for key, identity, encoded in RecordFile(labelled_faces.record_file).images():
        keys.append(key)
        place = root / f"{identity:04d}" / f"{key:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded)
    table = labelled_faces.draw(256, 5)
    pq.write_table(table.set_column(0, "key", pa.array(range(1, 257), pa.int32())), tmp_path / "folder.parquet")
    pq.write_table(table, tmp_path / "record.parquet")
    folder = load_training_set(tmp_path / "folder.parquet", root)
    records = load_training_set(tmp_path / "record.parquet", labelled_faces.record_file)
    with Loader(folder, threads=2) as one, Loader(records, threads=1) as two:
        rows = [np.arange(40)]
        assert (next(one.batches(rows)).images == next(two.batches(rows)).images).all()
    (root / "0000" / f"{keys[3]:06d}.jpg").unlink()
    with pytest.raises(TrainingDataError, match="key 4 cannot be used"):
        folder.decode_into(np.zeros((112, 112, 3), np.uint8), 3)


def test_a_training_set_travels_without_pixels(labelled_faces: LabelledSample, faces_labels: Path) -> None:
    data = load_training_set(faces_labels, labelled_faces.record_file)
    target, again = np.zeros((2, 112, 112, 3), np.uint8)
    data.decode_into(target, 7)
    packed = pickle.dumps(data)
    assert len(packed) < 40_000
    pickle.loads(packed).decode_into(again, 7)
    assert (again == target).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_order_and_whole(labelled_faces: LabelledSample, faces_labels: Path, threads: int) -> None:
    data = load_training_set(faces_labels, labelled_faces.record_file)
    order = np.random.default_rng(0).permutation(len(data))
    rows = [*np.array_split(order, 7), np.array([], np.int64)]
    with Loader(data, threads=threads, ahead=2) as loader:
        batches = list(loader.batches(iter(rows)))
    assert [batch.rows.tolist() for batch in batches] == [part.tolist() for part in rows]
    for batch in batches:
        assert batch.images.shape == (len(batch.rows), 112, 112, 3)
    expected = np.zeros((112, 112, 3), np.uint8)
    for place in (0, 20, len(rows[6]) - 1):
        data.decode_into(expected, int(rows[6][place]))
        assert (batches[6].images[place].numpy() == expected).all()


def test_a_changed_record_is_an_error_that_names_the_key(
    labelled_faces: LabelledSample, faces_labels: Path, tmp_path: Path
) -> None:
    for name in ("train.rec", "train.idx"):
        shutil.copyfile(labelled_faces.record_file.with_name(name), tmp_path / name)
    data = load_training_set(faces_labels, tmp_path / "train.rec")
    index = RecordFile(tmp_path / "train.rec").index()
    with (tmp_path / "train.rec").open("r+b") as file:
        file.seek(int(index.offsets[50]) + 40)
        file.write(bytes(200))
    with Loader(data, threads=2) as loader, pytest.raises(TrainingDataError, match=f"key {index.keys[50]} .*label"):
        list(loader.batches([np.arange(64), np.arange(64, 100)]))


def _twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(3, 1)])


def _outside(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("quality"), "quality", pa.array([1.5] * len(table), pa.float32()))


def _unknown_class(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("blur"), "blur", pa.array(["foggy"] * len(table)))


def _stranger(table: pa.Table) -> pa.Table:
    return table.set_column(1, "identity", pa.array([77] * len(table), pa.int32()))


def _strange_keys(table: pa.Table) -> pa.Table:
    return table.set_column(0, "key", pa.array(range(1001, 1001 + len(table)), pa.int32()))


def _unreadable(table: pa.Table) -> pa.Table:
    return table.set_column(len(table.column_names) - 1, "status", pa.array(["no_face+wrong_size"] * len(table)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_twice, "stands there twice"),
        (_outside, "1.5, not within"),
        (_unknown_class, "does not hold the table `labels`"),
        (_stranger, "does not belong to the labels"),
        (_strange_keys, "does not belong to the labels"),
        (_unreadable, "no row has an image"),
        (lambda table: table.drop_columns(["pose"]), "does not hold the table `labels`"),
        (lambda table: table.slice(0, 0), "no row"),
    ],
)
def test_a_wrong_table_is_one_error(
    labelled_faces: LabelledSample, tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    pq.write_table(change(labelled_faces.draw(40, 2)), tmp_path / "shard.parquet")
    with pytest.raises(TrainingDataError, match=message):
        load_training_set(tmp_path, labelled_faces.record_file)


def test_labels_of_two_runs_are_refused(labelled_faces: LabelledSample, tmp_path: Path) -> None:
    for name in ("one", "two"):
        table = labelled_faces.draw(20, 0).replace_schema_metadata({"fingerprint": name})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(TrainingDataError, match=r"different runs \(one, two\)"):
        read_labels(tmp_path)


def test_places_that_hold_nothing(labelled_faces: LabelledSample, faces_labels: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="no Parquet file"):
        read_labels(tmp_path)
    with pytest.raises(TrainingDataError, match="no Parquet file"):
        read_labels(tmp_path / "nowhere")
    with pytest.raises(TrainingDataError, match="no such file or folder"):
        load_training_set(faces_labels, tmp_path / "train.rec")
    with pytest.raises(TrainingDataError, match=r"name the file, .*train\.rec"):
        load_training_set(faces_labels, labelled_faces.record_file.parent)
    (tmp_path / "text.parquet").write_text("not Parquet")
    with pytest.raises(TrainingDataError, match="does not hold the table"):
        read_labels(tmp_path)
