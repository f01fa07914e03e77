"""Anchors against CR-FIQA's own numbers, against brute force, and against every way of cutting the work."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from data_manifests.tables.stages import Status
from labelers.anchors import nearest
from labelers.anchors.centres import Centres, CentreSums, IdentityError, accumulate, head_centres, unit_rows
from labelers.anchors.copies import find_copies
from labelers.anchors.head import HeadError, HeadLayout, load_head, load_identities, order_rows
from labelers.anchors.head_fit import require_fit
from labelers.anchors.nearest import CentreSearch, NumpySearch, TorchSearch, open_search
from labelers.anchors.similarities import (
    AnchorRangeError,
    anchor_statistics,
    certainty_ratio,
    class_similarities,
    leave_one_out_from_centres,
    leave_one_out_similarities,
    measure_anchors,
    normalise,
    plain_ratio,
)
from labelers.runtime.device import Device, ProviderError


@pytest.fixture(scope="module")
def oracle(real_data: Path) -> dict[str, np.ndarray]:
    with np.load(real_data / "oracles" / "cr" / "cr.npz") as file:
        return dict(file)


def make_data(seed: int, people: int, dimension: int, most: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled embeddings of any length around a centre of each person, and identities with gaps."""
    rng = np.random.default_rng(seed)
    identities = np.repeat(np.arange(people) * 3 + 2, rng.integers(1, most + 1, people)).astype(np.int32)
    rng.shuffle(identities)
    centres = rng.standard_normal((people * 3 + 2, dimension))
    noise = rng.standard_normal((len(identities), dimension))
    lengths = rng.uniform(0.1, 30, (len(identities), 1))
    return ((centres[identities] + noise) * lengths).astype(np.float32), identities


def unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)


def brute_force(embeddings: np.ndarray, identities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave-one-out by its words, one image at a time, in float64."""
    units = unit(embeddings)
    means = {int(person): units[identities == person].mean(axis=0) for person in set(identities.tolist())}
    ccs, nnccs = np.full((2, len(units)), np.nan)
    for row, person in enumerate(identities.tolist()):
        others = identities == person
        others[row] = False
        if not others.any():
            continue
        ccs[row] = units[row] @ unit(units[others].mean(axis=0))
        negatives = [units[row] @ unit(mean) for other, mean in means.items() if other != person]
        nnccs[row] = max(negatives, default=np.nan)
    return ccs, nnccs


# --- CR-FIQA's own numbers --------------------------------------------------------------------------------------------


def test_similarities_and_ratios_of_cr_fiqa(oracle: dict[str, np.ndarray]) -> None:
    ccs, nnccs = class_similarities(oracle["emb"], oracle["label"], oracle["kernel"].T)
    np.testing.assert_allclose(ccs, oracle["ccs_f64"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.maximum(nnccs, -1e-12), oracle["nnccs_f64"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(nnccs, oracle["true_nnccs_unfloored"], atol=5e-7)
    np.testing.assert_allclose(ccs, oracle["ccs_f32"], atol=1e-6)
    np.testing.assert_allclose(np.maximum(nnccs, -1e-12), oracle["nnccs_f32"], atol=1e-6)
    np.testing.assert_allclose(certainty_ratio(ccs, nnccs), oracle["cr_paper_f64"], rtol=1e-12)
    np.testing.assert_allclose(certainty_ratio(ccs, nnccs), oracle["cr_f32"], atol=1e-6)
    np.testing.assert_allclose(plain_ratio(ccs, nnccs), oracle["ratio_plain_f64"], rtol=1e-10)


def test_the_floor_belongs_to_the_plain_ratio_alone(oracle: dict[str, np.ndarray]) -> None:
    ccs, nnccs = class_similarities(oracle["small_emb"], oracle["small_label"], oracle["small_kernel"].T)
    np.testing.assert_allclose(ccs, oracle["small_ccs"], atol=1e-6)
    assert (nnccs < -0.3).all()
    np.testing.assert_allclose(np.maximum(nnccs, -1e-12), oracle["small_nnccs"], rtol=1e-6)
    np.testing.assert_allclose(plain_ratio(ccs, nnccs), ccs / -1e-12)
    assert (np.abs(plain_ratio(ccs, nnccs)) > 5e11).all()
    assert (np.abs(certainty_ratio(ccs, nnccs)) < 2).all()


def test_ratios_by_hand() -> None:
    ccs, nnccs = np.array([0.6, -0.3, 0.5, 1.0, np.nan]), np.array([0.2, 0.5, -1.0, 0.0, 0.1])
    np.testing.assert_allclose(certainty_ratio(ccs, nnccs)[:2], [0.6 / (1.2 + 1e-9), -0.3 / (1.5 + 1e-9)], rtol=1e-15)
    assert certainty_ratio(ccs, nnccs)[2] == pytest.approx(5e8)
    assert np.isnan(certainty_ratio(ccs, nnccs)[4])
    np.testing.assert_allclose(plain_ratio(ccs, nnccs)[:3], [3.0, -0.6, 0.5 / -1e-12])
    assert plain_ratio(ccs, nnccs)[3] == np.inf
    # float32 loses the 1e-9, so that nothing but float64 keeps the pole away.
    assert np.isfinite(certainty_ratio(np.float32([0.5]), np.float32([-1.0]))).all()


# --- against brute force ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(1, 12), dimension=st.integers(2, 24))
def test_leave_one_out_equals_brute_force(seed: int, people: int, dimension: int) -> None:
    embeddings, identities = make_data(seed, people, dimension)
    found, expected = leave_one_out_similarities(embeddings, identities), brute_force(embeddings, identities)
    for ours, truth in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, truth, atol=5e-6)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 40),
    classes=st.integers(1, 30),
    rows=st.integers(1, 50),
    columns=st.integers(1, 40),
)
def test_class_similarities_equal_brute_force_however_cut(
    seed: int, count: int, classes: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((count, 16)).astype(np.float32) * 9
    centres = rng.standard_normal((classes, 16)).astype(np.float32) * rng.uniform(0.1, 9, (classes, 1)).astype(
        np.float32
    )
    identities = rng.integers(0, classes, count)
    ccs, nnccs = class_similarities(embeddings, identities, centres, rows=rows, columns=columns)
    cosines = unit(embeddings) @ unit(centres).T
    np.testing.assert_allclose(ccs, cosines[np.arange(count), identities], atol=1e-12)
    cosines[np.arange(count), identities] = -np.inf
    expected = cosines.max(axis=1) if classes > 1 else np.full(count, np.nan)
    np.testing.assert_allclose(nnccs, expected, atol=5e-7)
    whole = class_similarities(embeddings, identities, centres)
    np.testing.assert_allclose(nnccs, whole[1], atol=5e-7)
    np.testing.assert_array_equal(ccs, whole[0])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(2, 12))
def test_order_does_not_matter(seed: int, people: int) -> None:
    embeddings, identities = make_data(seed, people, 8)
    order = np.random.default_rng(seed).permutation(len(identities))
    for straight, shuffled in zip(
        leave_one_out_similarities(embeddings, identities),
        leave_one_out_similarities(embeddings[order], identities[order]),
        strict=True,
    ):
        np.testing.assert_allclose(shuffled, straight[order], atol=5e-7)


def test_equal_faces_stay_within_one() -> None:
    face = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    embeddings, identities = np.tile(face, (9, 1)), np.repeat([0, 1, 2], 3)
    for values in leave_one_out_similarities(embeddings, identities):
        assert (values <= 1.0).all()
        np.testing.assert_allclose(values, 1.0, atol=1e-6)
    for values in leave_one_out_similarities(embeddings * np.array([1, -1, 1] * 3)[:, None], identities):
        assert (np.abs(values[np.isfinite(values)]) <= 1.0).all()


# --- centres ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(1, 20), pieces=st.integers(1, 6), shuffle=st.booleans())
def test_centres_are_equal_to_the_last_bit_however_summed(seed: int, people: int, pieces: int, shuffle: bool) -> None:
    embeddings, identities = make_data(seed, people, 16, most=9)
    whole = accumulate([(embeddings, identities)])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(identities)) if shuffle else np.arange(len(identities))
    cuts = np.sort(rng.integers(0, len(identities) + 1, pieces))
    parts = [(embeddings[rows], identities[rows]) for rows in np.split(order, cuts)]
    streamed, merged = accumulate(parts), CentreSums()
    for part in reversed(parts):
        merged.merge(CentreSums().add(*part))
    for centres in (streamed, merged.to_centres()):
        for name in ("identities", "counts", "sums"):
            np.testing.assert_array_equal(getattr(centres, name), getattr(whole, name))
    np.testing.assert_array_equal(whole.identities, np.unique(identities))
    expected = np.stack([unit(embeddings[identities == person]).sum(axis=0) for person in whole.identities])
    np.testing.assert_allclose(whole.sums, expected, atol=1e-5)


def test_what_has_no_direction_or_no_name_stands_in_no_centre() -> None:
    embeddings, identities = make_data(5, 6, 8)
    extra = np.array([[np.nan] * 8, [0.0] * 8, [np.inf] * 8, [1.0] * 8], np.float32)
    more = accumulate([(np.vstack([extra, embeddings]), np.concatenate([identities[:3], [-1], identities]))])
    less = accumulate([(embeddings, identities)])
    np.testing.assert_array_equal(more.sums, less.sums)
    np.testing.assert_array_equal(more.counts, less.counts)
    assert len(accumulate([])) == 0


def test_impossible_centres_are_refused() -> None:
    good = {
        "identities": np.array([1, 4], np.int32),
        "counts": np.array([2, 1], np.int32),
        "sums": np.eye(2, dtype="f4"),
    }
    assert len(Centres(**good)) == 2
    for change, text in (
        ({"identities": np.array([4, 1], np.int32)}, "ascend"),
        ({"identities": np.array([4, 4], np.int32)}, "ascend"),
        ({"counts": np.array([2, 0], np.int32)}, "some of each"),
        ({"counts": np.array([2], np.int32)}, "1 counts"),
        ({"sums": np.array([[1, 0], [np.nan, 0]], np.float32)}, "identity 4"),
    ):
        with pytest.raises(ValueError, match=text):
            Centres(**{**good, **change})
    with pytest.raises(ValueError, match="16 values after some of 8"):
        accumulate([(np.ones((1, 8)), np.array([1])), (np.ones((1, 16)), np.array([2]))])


def test_an_identity_without_a_centre_is_named() -> None:
    rows = np.ones((2, 4), np.float32)
    for wrong in (7, -1, 3):
        with pytest.raises(IdentityError, match=f"identity {wrong} "):
            class_similarities(rows, np.array([0, wrong]), np.eye(3, 4))
    centres = accumulate([(np.eye(3, 4), np.array([2, 5, 5]))])
    with pytest.raises(IdentityError, match="identity 4 "):
        leave_one_out_from_centres(rows, np.array([2, 4]), open_search(centres))
    with pytest.raises(ValueError, match="different recognisers"):
        class_similarities(rows, np.array([0, 1]), np.eye(3, 5))
    with pytest.raises(ValueError, match="class_similarities"):
        leave_one_out_from_centres(rows, np.array([0, 1]), open_search(head_centres(np.eye(3, 4))))


# --- the measures of a part -------------------------------------------------------------------------------------------


def test_a_part_is_measured_like_the_whole() -> None:
    embeddings, identities = make_data(1, 40, 16)
    embeddings[3] = np.nan
    embeddings[4] = 0.0
    identities[5] = -1
    search = open_search(accumulate([(embeddings, identities)]))
    used = [row for row in range(len(identities)) if row not in (3, 4, 5)]
    truth = np.full((2, len(identities)), np.nan)
    truth[:, used] = brute_force(embeddings[used], identities[used])
    parts = [measure_anchors(embeddings[rows], identities[rows], search) for rows in (slice(0, 30), slice(30, None))]
    status = parts[0].status + parts[1].status
    for row, cause in enumerate(status):
        if row in (3, 4):
            assert cause is Status.NO_FACE
        elif row == 5:
            assert cause is Status.NO_IDENTITY
        else:
            assert cause is (Status.SINGLE_IMAGE if np.isnan(truth[0, row]) else Status.OK)
    expected = {"ccs": truth[0], "nnccs": truth[1], "certainty_ratio": truth[0] / (truth[1] + 1 + 1e-9)}
    for part, rows in zip(parts, (slice(0, 30), slice(30, None)), strict=True):
        good = np.array([cause is Status.OK for cause in part.status])
        for name, values in expected.items():
            column = part.columns[name]
            assert column.dtype == np.float32
            assert (np.isfinite(column) == good).all()
            np.testing.assert_allclose(column[good], values[rows][good], atol=1e-5)


def test_copies_are_found_within_a_person_and_change_nothing_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelers.anchors.copies._ROWS", 3)
    embeddings, identities = np.random.default_rng(2).standard_normal((40, 16)), np.arange(40) % 4
    truth = measure_anchors(embeddings, identities, open_search(accumulate([(embeddings, identities)])))
    near = embeddings[2] + 0.01
    more = np.stack([3 * embeddings[5], near, embeddings[5], embeddings[7], np.full(16, np.nan), np.full(16, np.nan)])
    both, people = np.concatenate([embeddings, more]), np.append(identities, [1, 2, 2, -1, 3, 3])
    copies = find_copies(both, people)
    assert np.flatnonzero(copies).tolist() == [40, 41]  # not 42, of another person, nor 43, of nobody
    assert not find_copies(both[::-1][6:], people[::-1][6:]).any()
    people[42] = -1
    search = open_search(accumulate([(both[~copies], people[~copies])]))
    found = measure_anchors(both, people, search, copies)
    assert found.status == [*truth.status, *[Status.COPY] * 2, *[Status.NO_IDENTITY] * 2, *[Status.NO_FACE] * 2]
    for name, column in truth.columns.items():
        np.testing.assert_array_equal(found.columns[name], np.append(column, np.full(6, np.nan, np.float32)))


def test_nothing_is_a_copy_among_nothing() -> None:
    assert find_copies(np.zeros((0, 4), np.float32), np.zeros(0, np.int32)).tolist() == []


def test_nothing_is_a_copy_where_a_recogniser_gives_all_people_the_same() -> None:
    alike = np.ones((6, 8), np.float32) + np.random.default_rng(0).normal(0, 1e-3, (6, 8)).astype(np.float32)
    assert not find_copies(alike, np.array([0, 0, 1, 1, 2, 2])).any()
    assert find_copies(alike, np.zeros(6, int)).sum() == 5


def test_one_person_has_no_other() -> None:
    embeddings = np.random.default_rng(0).standard_normal((4, 8))
    measures = measure_anchors(embeddings, np.full(4, 7), open_search(accumulate([(embeddings, np.full(4, 7))])))
    assert measures.status == [Status.NO_OTHER_IDENTITY] * 4
    assert all(np.isnan(column).all() for column in measures.columns.values())
    one = open_search(accumulate([(embeddings[:1], np.array([7]))]))
    alone = measure_anchors(embeddings[:1], np.array([7]), one)
    assert alone.status == [Status.SINGLE_IMAGE]


def test_a_head_measures_single_images_too(oracle: dict[str, np.ndarray]) -> None:
    search = open_search(head_centres(oracle["kernel"].T))
    measures = measure_anchors(oracle["emb"], oracle["label"], search)
    assert set(measures.status) == {Status.OK}
    np.testing.assert_allclose(measures.columns["certainty_ratio"], oracle["cr_paper_f64"], rtol=2e-7)
    nobody = measure_anchors(oracle["emb"][:2], np.array([-1, 0]), search)
    assert nobody.status == [Status.NO_IDENTITY, Status.OK]


def test_nothing_to_measure() -> None:
    nothing = open_search(accumulate([(np.full((3, 8), np.nan, np.float32), np.array([1, 1, 2]))]))
    measures = measure_anchors(np.full((3, 8), np.nan, np.float32), np.array([1, 1, 2]), nothing)
    assert measures.status == [Status.NO_FACE] * 3
    assert measure_anchors(np.zeros((0, 8), np.float32), np.zeros(0, np.int32), nothing).status == []


def test_memory_stays_far_below_all_pairs() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((2048, 32)).astype(np.float32)
    centres = rng.standard_normal((40_000, 32)).astype(np.float32)
    identities = rng.integers(0, 40_000, 2048)
    tracemalloc.start()
    class_similarities(embeddings, identities, centres)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6  # all pairs: 328 MB


def similar_centres(classes: int, dimension: int = 16) -> Centres:
    """Centres of all lengths, one of them without direction."""
    rng = np.random.default_rng(classes)
    centres = rng.standard_normal((classes, dimension)) * 10.0 ** rng.uniform(-6, 6, (classes, 1))
    centres[classes // 2] = 0.0
    return head_centres(centres.astype(np.float32))


@pytest.mark.parametrize("way", ["numpy", "torch"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 13), (50, 90), (256, 1024)])
def test_every_way_of_searching_finds_the_same(way: str, rows: int, columns: int) -> None:
    centres = similar_centres(90)
    search: CentreSearch = (
        NumpySearch(centres, rows, columns) if way == "numpy" else TorchSearch(centres, "cpu", rows, columns)
    )
    rng = np.random.default_rng(0)
    for count in (50, 0, 1, 33):  # the same search again and again
        units, own = unit_rows(rng.standard_normal((count, 16))), rng.integers(0, 90, count)
        similarity = units @ (centres.sums / np.maximum(centres.lengths, 1e-300)[:, None]).T
        own[: count // 2] = similarity[: count // 2].argmax(axis=1)  # the own centre is often the nearest of all
        similarity[np.arange(count), own] = -np.inf
        np.testing.assert_array_equal(search.nearest_other(units, own), similarity.argmax(axis=1))
    # A centre without direction is nearer than those that look away.
    away = NumpySearch(head_centres(np.array([[1, 0], [-1, 0], [0, 0]], "f4")), rows, columns)
    assert away.nearest_other(np.array([[1, 0]], "f4"), np.array([0])).tolist() == [2]


def test_threads_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, identities = make_data(3, 60, 16)
    expected = leave_one_out_similarities(embeddings, identities)
    monkeypatch.setattr(nearest, "processor_threads", lambda: 4)
    search = NumpySearch(accumulate([(embeddings, identities)]), 16, 8)
    np.testing.assert_array_equal(leave_one_out_from_centres(embeddings, identities, search), expected)


def test_the_gpu_way_gives_the_same() -> None:
    centres = similar_centres(90)
    units, own = unit_rows(np.random.default_rng(0).standard_normal((50, 16))), np.arange(50)
    if torch.cuda.is_available():
        found = open_search(centres, Device.CUDA).nearest_other(units, own)
        np.testing.assert_array_equal(found, open_search(centres).nearest_other(units, own))
    else:
        with pytest.raises(ProviderError, match="pipeline doctor"):
            open_search(centres, Device.CUDA)


def test_anchors_load_no_runtime() -> None:
    heavy = "{'onnxruntime', 'onnx', 'torch', 'mediapipe', 'cv2', 'numba'} & set(sys.modules)"
    modules = "labelers.anchors.similarities, labelers.anchors.head"
    script = f"import sys, {modules}; sys.exit(str({heavy}) if {heavy} else 0)"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- the way to [0, 1] ------------------------------------------------------------------------------------------------


def test_normalise_by_hand() -> None:
    anchor = np.array([-1.0, 0.0, 0.5, 2.0, 9.0, np.nan])
    np.testing.assert_array_equal(normalise(anchor, 0.0, 2.0), [0.0, 0.0, 0.25, 1.0, 1.0, np.nan])
    for low, high in ((1.0, 1.0), (2.0, 1.0), (np.nan, 1.0), (0.0, np.inf)):
        with pytest.raises(AnchorRangeError, match="identities"):
            normalise(anchor, low, high)


def test_statistics_leave_out_what_is_not_finite() -> None:
    values = np.concatenate([np.linspace(0, 1, 2001), [np.nan, np.inf, -np.inf]])
    found = anchor_statistics(np.random.default_rng(0).permutation(values))
    assert (found.minimum, found.maximum, found.images) == (0.0, 1.0, 2001)
    assert (found.low, found.high) == pytest.approx((0.001, 0.999))
    assert anchor_statistics(np.array([np.nan])).images == 0


# --- heads ------------------------------------------------------------------------------------------------------------

HEAD = np.random.default_rng(4).standard_normal((10, 4)).astype(np.float32)


@pytest.mark.parametrize("stored", [HEAD, HEAD.T], ids=["classes first", "dimension first"])
def test_heads_of_every_format(tmp_path: Path, stored: np.ndarray) -> None:
    stored = np.ascontiguousarray(stored)
    np.save(tmp_path / "head.npy", stored)
    save_file({"weight": stored, "bias": np.zeros(10, np.float32)}, tmp_path / "head.safetensors")
    torch.save({"kernel": torch.from_numpy(stored)}, tmp_path / "head.pth")
    nested = {"state_dict": {"head": {"kernel": torch.from_numpy(stored)}}, "epoch": 3}
    torch.save(nested, tmp_path / "head.pt")
    for name in ("head.npy", "head.safetensors", "head.pth", "head.pt"):
        head = load_head(tmp_path / name, dimension=4)
        assert head.dtype == np.float32
        np.testing.assert_array_equal(head, HEAD)


def test_bfloat16_heads_are_read(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(HEAD).bfloat16(), tmp_path / "head.pt")
    np.testing.assert_allclose(load_head(tmp_path / "head.pt", dimension=4), HEAD, rtol=1e-2)


def test_unclear_heads_are_refused_with_what_the_file_holds(tmp_path: Path) -> None:
    two = tmp_path / "two.safetensors"
    save_file({"fc.weight": HEAD, "kernel": HEAD.T.copy(), "bias": np.zeros(4, np.float32)}, two)
    with pytest.raises(
        HeadError, match=r"two\.safetensors holds 2 matrices.*head_tensor.*fc\.weight \[10, 4\].*kernel \[4, 10\]"
    ):
        load_head(two, dimension=4)
    np.testing.assert_array_equal(load_head(two, dimension=4, key="kernel"), HEAD)
    with pytest.raises(HeadError, match=r"no tensor 'head'.*bias \[4\]"):
        load_head(two, dimension=4, key="head")
    with pytest.raises(HeadError, match="'bias' has no axis"):
        load_head(two, dimension=4, key="bias")
    with pytest.raises(HeadError, match="no matrix with an axis of 512"):
        load_head(two, dimension=512)
    with pytest.raises(HeadError, match="not dimension_first"):
        load_head(two, dimension=4, key="fc.weight", layout=HeadLayout.DIMENSION_FIRST)
    np.save(tmp_path / "square.npy", HEAD[:4])
    with pytest.raises(HeadError, match=r"look alike: set .* head_layout to classes_first or dimension_first"):
        load_head(tmp_path / "square.npy", dimension=4)
    square = load_head(tmp_path / "square.npy", dimension=4, layout=HeadLayout.DIMENSION_FIRST)
    np.testing.assert_array_equal(square, HEAD[:4].T)


def test_a_numpy_number_beside_the_weights_is_named_in_one_sentence(tmp_path: Path) -> None:
    torch.save({"weight": torch.from_numpy(HEAD), "best": np.float64(0.5)}, tmp_path / "best.pt")
    with pytest.raises(HeadError, match=r"^.*best\.pt is not .*: it holds numpy\.\S+\.scalar, .*; load it .*save\Z"):
        load_head(tmp_path / "best.pt", dimension=4)


class Trap:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_images_of_people_who_are_not_in_a_head_have_a_cause() -> None:
    """Who was left out of the recogniser's training; the others get what they would get without them."""
    search = open_search(head_centres(HEAD[:3], np.array([0, 2, 5], np.int32)))
    rows, people = HEAD[:4] + 0.1, np.array([0, 1, 5, 7])
    found = measure_anchors(rows, people, search)
    assert found.status == [Status.OK, Status.NO_CENTRE, Status.OK, Status.NO_CENTRE]
    others = measure_anchors(rows[[0, 2]], people[[0, 2]], search)
    for name, values in found.columns.items():
        np.testing.assert_array_equal(values[[0, 2]], others.columns[name])
        assert np.isnan(values[[1, 3]]).all()


def test_people_called_by_numbers_have_the_rows_of_these_numbers() -> None:
    head = np.arange(6, dtype=np.float32)[:, None]
    assert order_rows(head, ["0", "2", "05"]).ravel().tolist() == [0, 2, 5, 1, 3, 4]
    for unclear in ([], ["1", "6"], ["1", "01"], ["1", "b"], ["1", "²"], ["1", "-2"], ["0", "1" * 300]):
        assert order_rows(head, unclear) is head


def test_hostile_and_damaged_heads(tmp_path: Path) -> None:
    torch.save({"kernel": Trap(tmp_path / "ran")}, tmp_path / "trap.pt")
    np.save(tmp_path / "trap.npy", np.array([Trap(tmp_path / "ran")]), allow_pickle=True)
    save_file({"weight": HEAD}, tmp_path / "half.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "half.safetensors").read_bytes()[:-20])
    torch.save({"kernel": torch.from_numpy(HEAD)}, tmp_path / "half.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "half.pt").read_bytes()[:-200])
    np.save(tmp_path / "nan.npy", np.where(HEAD > 0, HEAD, np.nan))
    np.save(tmp_path / "int.npy", np.ones((10, 4), int))
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "head.bin").write_bytes(b"1")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(HeadError, match=path.name):
            load_head(path, dimension=4)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FileNotFoundError, match="absent"):
        load_head(tmp_path / "absent.npy", dimension=4)


def test_a_head_says_whose_centres_it_holds(tmp_path: Path) -> None:
    """Rows are those of the people that it names; without names, of the identities from 0."""
    people = np.arange(10, dtype=np.int64) * 3 + 20_000_001  # beyond what float32 holds
    save_file({"centres": HEAD, "identities": people}, tmp_path / "head.safetensors")
    torch.save({"centres": torch.from_numpy(HEAD), "identities": torch.from_numpy(people)}, tmp_path / "head.pt")
    save_file({"centres": HEAD}, tmp_path / "plain.safetensors")
    for name in ("head.safetensors", "head.pt"):
        found = load_identities(tmp_path / name)
        assert found is not None
        np.testing.assert_array_equal(found, people)
        centres = head_centres(load_head(tmp_path / name, dimension=4), found)
        np.testing.assert_array_equal(centres.rows_of(people[[7, 0]]), [7, 0])
        with pytest.raises(IdentityError, match="identity 3 has no class centre"):
            centres.rows_of(np.array([3]))
    assert load_identities(tmp_path / "plain.safetensors") is None
    with pytest.raises(ValueError, match="10 class centres of 9 people"):
        head_centres(HEAD, people[:9].astype(np.int32))
    for wrong in (people[::-1].copy(), people.astype(np.float32), people - people[1]):
        save_file({"centres": HEAD, "identities": wrong}, tmp_path / "wrong.safetensors")
        with pytest.raises(HeadError, match="whole numbers from 0 that ascend"):
            load_identities(tmp_path / "wrong.safetensors")


def test_a_head_is_refused_where_it_fits_as_by_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    means = rng.standard_normal((400, 64)).astype(np.float32)
    people = np.arange(400, dtype=np.int32)
    few = accumulate([(means[::8], people[::8])])
    noise = 0.5 * rng.standard_normal(means.shape).astype(np.float32)
    partly = np.where(people[:, None] % 5 == 0, means, rng.standard_normal(means.shape).astype(np.float32))
    for fitting in (means, means + noise, partly):
        require_fit(tmp_path, few, open_search(head_centres(fitting)))
    for wrong in (rng.standard_normal(means.shape).astype(np.float32), np.roll(means, 1, axis=0)):
        with pytest.raises(HeadError, match="of 50 are nearest to their own row, as by chance"):
            require_fit(tmp_path, few, open_search(head_centres(wrong)))
    alike = accumulate([(1 + 1e-3 * means, people)])  # the recogniser's fault, not the head's
    require_fit(tmp_path, alike, open_search(head_centres(means)))
    for too_few in (0, 3):
        some = accumulate([(means[:too_few], people[:too_few])])
        require_fit(tmp_path, some, open_search(head_centres(np.roll(means, 1, axis=0))))
