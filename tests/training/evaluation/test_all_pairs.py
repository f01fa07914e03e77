"""All pairs in blocks against the list of all pairs, whatever the blocks, the ties and the errors of products."""

from __future__ import annotations

import tracemalloc
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelers.runtime.denormals import flush_denormals, flushes_denormals
from labelers.runtime.device import Device, ProviderError
from training.evaluation import error_reject
from training.evaluation.pairs import all_pairs, impostors
from training.evaluation.pairs.all_pairs import AllPairs, IdentitySetError
from training.evaluation.pairs.blocks import Block, BlockShape, NumpyBlocks, TorchBlocks
from training.evaluation.pairs.histogram import BINS, HIDDEN, PLACES, WIDTH, bin_edges, bins_of, count_bins, read_bins
from training.evaluation.pairs.impostor_threshold import choose_threshold, find_window, product_error
from training.evaluation.pairs.rejection_levels import RejectionLevels
from training.evaluation.pairs.similarity import pair_similarities, unit_embeddings
from training.evaluation.pairs.threshold_search import ProductError

FMRS = (1e-3, 1e-2, 0.1, 1 / 3, 0.5, 1.0)


class ListedPairs:
    """All pairs of an identity set as lists, in the order of `np.triu_indices`."""

    def __init__(self, embeddings: np.ndarray, identities: np.ndarray) -> None:
        self.known = np.flatnonzero(identities >= 0)
        a, b = np.triu_indices(len(self.known), 1)
        units = unit_embeddings(embeddings, self.known)
        self.a, self.b = self.known[a], self.known[b]
        self.similarity = pair_similarities(units, a, b)
        self.same = identities[self.a] == identities[self.b]

    @property
    def both_kinds(self) -> bool:
        return bool(self.same.any() and not self.same.all())


def draw_embeddings(rng: np.random.Generator, kind: str, images: int, dimension: int) -> np.ndarray:
    """Embeddings of which some kinds have many equal similarities."""
    drawn = rng.standard_normal((images, dimension))
    if kind == "signs":
        return np.sign(drawn)
    if kind == "copies":
        return drawn[rng.integers(0, max(images // 4, 1), images)]
    if kind == "whole":
        return np.round(drawn) + 0.125
    return drawn


def draw_quality(rng: np.random.Generator, kind: str, images: int) -> np.ndarray:
    return {"distinct": rng.random(images), "tied": rng.integers(0, 4, images) / 4, "flat": np.ones(images)}[kind]


def make_people(seed: int, people: int, dimension: int = 32, most: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled images around a centre of each person, one in ten of nobody known."""
    rng = np.random.default_rng(seed)
    identities = np.repeat(np.arange(people), rng.integers(1, most + 1, people)).astype(np.int32)
    rng.shuffle(identities)
    noise = rng.standard_normal((len(identities), dimension)) * 1.2
    embeddings = (rng.standard_normal((people, dimension))[identities] + noise).astype(np.float16)
    identities[rng.random(len(identities)) < 0.1] = -1
    return embeddings, identities


def answers(pairs: AllPairs, quality: np.ndarray) -> list[Any]:
    """Everything that is decided on impostor pairs."""
    return [pairs.thresholds(FMRS).similarity, *(fnmr.tolist() for _, fnmr in pairs.cr_fiqa_curves(quality, FMRS))]


# --- against the list of all pairs ------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(2, 40),
    dimension=st.integers(1, 16),
    kind=st.sampled_from(["normal", "signs", "copies", "whole"]),
    quality_kind=st.sampled_from(["distinct", "tied", "flat"]),
    width=st.sampled_from([np.float16, np.float32]),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4)),
)
def test_equal_to_the_list_of_all_pairs(
    *,
    seed: int,
    images: int,
    dimension: int,
    kind: str,
    quality_kind: str,
    width: type[np.floating[Any]],
    shape: tuple[int, int, int],
) -> None:
    rng = np.random.default_rng(seed)
    embeddings = draw_embeddings(rng, kind, images, dimension).astype(width)
    embeddings[~embeddings.any(axis=1)] = 1  # a zero vector has no direction
    identities = rng.integers(-1, max(2, images // 3), images).astype(np.int32)
    quality = draw_quality(rng, quality_kind, images)
    listed = ListedPairs(embeddings, identities)
    pairs = AllPairs.build(embeddings, identities, shape=BlockShape(*shape))

    genuine = zip(listed.a[listed.same], listed.b[listed.same], listed.similarity[listed.same], strict=True)
    assert set(zip(pairs.a, pairs.b, pairs.similarity, strict=True)) == set(genuine)
    assert len(pairs.a) == listed.same.sum()
    assert pairs.impostors == (~listed.same).sum()
    found = pairs.thresholds(FMRS)
    assert found.histogram.sum() == pairs.impostors
    curves = pairs.cr_fiqa_curves(quality, FMRS)
    if not listed.both_kinds:
        return
    of_pair = np.minimum(quality[listed.a], quality[listed.b])
    for fmr, (rates, fnmr) in zip(FMRS, curves, strict=True):
        assert found.similarity[fmr] == error_reject.threshold(listed.similarity, listed.same, fmr)
        expected = error_reject.curve(listed.similarity, listed.same, of_pair, fmr, "cr_fiqa")
        np.testing.assert_array_equal(rates, expected[0])
        np.testing.assert_array_equal(fnmr, expected[1])


def test_fixed_curve_from_the_genuine_pairs_alone() -> None:
    embeddings, identities = make_people(3, 60)
    quality = np.random.default_rng(0).random(len(identities))
    listed, pairs = ListedPairs(embeddings, identities), AllPairs.build(embeddings, identities)
    limit = pairs.thresholds([0.01]).similarity[0.01]
    found = error_reject.fixed_curve(pairs.similarity, np.minimum(quality[pairs.a], quality[pairs.b]), limit)
    of_pair = np.minimum(quality[listed.a], quality[listed.b])
    for ours, theirs in zip(found, error_reject.curve(listed.similarity, listed.same, of_pair, 0.01), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_histogram_is_that_of_the_listed_impostors() -> None:
    embeddings, identities = make_people(5, 80)
    listed = ListedPairs(embeddings, identities)
    found = AllPairs.build(embeddings, identities).thresholds([0.1]).histogram
    similarity = np.sort(listed.similarity[~listed.same].astype(np.float64))
    reach = product_error(embeddings.shape[1])
    below = found.cumsum()
    edges = bin_edges()[1:]
    assert (below >= np.searchsorted(similarity, edges - reach)).all()
    assert (below <= np.searchsorted(similarity, edges + reach)).all()


# --- how the work is cut and where it is done -------------------------------------------------------------------------


def test_blocks_threads_and_torch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, identities = make_people(1, 300, dimension=64)
    quality = np.random.default_rng(2).integers(0, 12, len(identities)) / 12
    expected = answers(AllPairs.build(embeddings, identities), quality)
    for shape in (BlockShape(128, 256), BlockShape(97, 31), BlockShape(40, 64, stack=3), BlockShape(5000, 5000)):
        assert answers(AllPairs.build(embeddings, identities, shape=shape), quality) == expected
    small = AllPairs.build(embeddings, identities, shape=BlockShape(64, 128, stack=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impostors, "KEPT", 0)
        assert answers(small, quality) == expected
    monkeypatch.setattr(impostors, "processor_threads", lambda: 4)
    assert answers(small, quality) == expected
    torch.set_num_threads(1)
    monkeypatch.setattr(impostors, "processor_threads", lambda: 1)
    monkeypatch.setattr(impostors, "open_blocks", lambda units, hidden, _: TorchBlocks(units, hidden, "cpu"))
    assert answers(small, quality) == expected


def test_similarity_of_a_pair_does_not_depend_on_the_others() -> None:
    embeddings, _ = make_people(4, 40, dimension=512)
    units = unit_embeddings(embeddings, np.arange(len(embeddings)))
    a, b = np.triu_indices(len(units), 1)
    together = pair_similarities(units, a, b)
    one_by_one = [pair_similarities(units, b[p : p + 1], a[p : p + 1])[0] for p in range(len(a))]
    np.testing.assert_array_equal(together, one_by_one)
    exact = (units[a].astype(np.longdouble) * units[b]).sum(axis=1)
    np.testing.assert_allclose(together, exact.astype(np.float64), rtol=0, atol=2.0**-24)


def test_products_are_within_the_error_that_is_allowed_for() -> None:
    for dimension in (1, 3, 128, 512):
        embeddings, _ = make_people(6, 60, dimension=dimension)
        units = unit_embeddings(embeddings, np.arange(len(embeddings)))
        exact = units.astype(np.float64) @ units.T.astype(np.float64)
        assert np.abs(units @ units.T - exact).max() < product_error(dimension)


class FlagBlocks(NumpyBlocks):
    """Notes whether the threads that compute take denormal numbers for zero."""

    flags: ClassVar[set[bool]] = set()

    def fill(self, matrix: Any, block: Block) -> Any:
        self.flags.add(flushes_denormals())
        return super().fill(matrix, block)


def test_the_threads_of_an_evaluation_take_denormal_numbers_for_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impostors, "open_blocks", lambda units, hidden, _: FlagBlocks(units, hidden))
    embeddings, identities = make_people(3, 40)
    with flush_denormals():
        AllPairs.build(embeddings, identities, shape=BlockShape(16, 32)).thresholds([1e-2])
    assert FlagBlocks.flags == {True}


def test_a_block_is_multiplied_once_while_its_products_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fill, calls = NumpyBlocks.fill, []

    def note(self: NumpyBlocks, matrix: np.ndarray, block: Any) -> np.ndarray:
        calls.append((block.rows.start, block.columns.start))
        return fill(self, matrix, block)

    monkeypatch.setattr(NumpyBlocks, "fill", note)
    embeddings, identities = make_people(3, 60)
    pairs = AllPairs.build(embeddings, identities, shape=BlockShape(16, 32))
    kept = pairs.thresholds([1e-2]).similarity
    assert len(calls) == len(set(calls)) > 20
    monkeypatch.setattr(impostors, "KEPT", (identities >= 0).sum() ** 2 // 2 - 1)
    calls.clear()
    assert pairs.thresholds([1e-2]).similarity == kept
    assert len(calls) == 2 * len(set(calls)) > 40


def test_memory_stays_far_below_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impostors, "KEPT", 0)
    identities = (np.arange(8000) // 2).astype(np.int32)
    embeddings = np.random.default_rng(0).standard_normal((len(identities), 4)).astype(np.float16)
    tracemalloc.start()
    try:
        AllPairs.build(embeddings, identities).thresholds([1e-4])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20  # the matrix would take 256 MB


def test_products_that_cannot_be_repeated_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each product within its error, but not the same in the second pass as in the first."""
    monkeypatch.setattr(impostors, "KEPT", 0)
    pairs = AllPairs.build(*make_people(7, 400, dimension=512), shape=BlockShape(5000, 5000))
    fill, calls = NumpyBlocks.fill, []

    def drift(self: NumpyBlocks, matrix: np.ndarray, block: Any) -> np.ndarray:
        calls.append(block)
        return fill(self, matrix, block) + np.float32(1e-5 * len(calls))

    monkeypatch.setattr(NumpyBlocks, "fill", drift)
    with pytest.raises(ProductError, match="OMP_NUM_THREADS=1"):
        pairs.thresholds([0.3, 0.1, 0.01])
    assert len(calls) == 2


def test_products_in_a_shorter_format_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, identities = make_people(7, 100)

    def shorten(units: np.ndarray, hidden: Any, _: Device) -> NumpyBlocks:
        return NumpyBlocks(torch.from_numpy(units).bfloat16().float().numpy(), hidden)

    monkeypatch.setattr(impostors, "open_blocks", shorten)
    with pytest.raises(ProductError, match="TF32"):
        AllPairs.build(embeddings, identities).thresholds([0.1])


def test_rows_that_are_not_there() -> None:
    units = np.eye(3, dtype=np.float32)
    for row in (3, -1):
        with pytest.raises(IndexError, match="of 3 embeddings"):
            pair_similarities(units, np.array([0, row]), np.array([1, 1]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error() -> None:
    pairs = AllPairs.build(*make_people(8, 10), device=Device.CUDA)
    with pytest.raises(ProviderError, match="cpu"):
        pairs.thresholds([0.1])


# --- sets that lack something -----------------------------------------------------------------------------------------


def test_images_of_unknown_people_are_in_no_pair() -> None:
    embeddings, identities = make_people(9, 30)
    known = identities >= 0
    quality = np.arange(len(identities), dtype=np.float64)
    quality[~known] = np.nan
    embeddings[~known] = np.nan
    all_images = AllPairs.build(embeddings, identities)
    rows = np.flatnonzero(known)
    known_alone = AllPairs.build(embeddings[known], identities[known])
    assert answers(all_images, quality) == answers(known_alone, quality[known])
    np.testing.assert_array_equal(all_images.a, rows[known_alone.a])
    np.testing.assert_array_equal(all_images.b, rows[known_alone.b])


@pytest.mark.parametrize(
    ("identities", "genuine", "impostor"),
    [([], 0, 0), ([-1, -1], 0, 0), ([4], 0, 0), ([4, 4, 4], 3, 0), ([1, 2, 3], 0, 3)],
)
def test_sets_without_one_kind_of_pairs(identities: list[int], genuine: int, impostor: int) -> None:
    embeddings = np.eye(3, dtype=np.float16)[: len(identities)]
    pairs = AllPairs.build(embeddings, np.array(identities, np.int32))
    assert (len(pairs.a), pairs.impostors) == (genuine, impostor)
    found = pairs.thresholds([0.01]).similarity[0.01]
    assert np.isnan(found) if impostor == 0 else found == 0.0
    (_, fnmr), *_ = pairs.cr_fiqa_curves(np.ones(len(identities)), [0.01])
    assert np.isnan(fnmr).all()


def test_images_that_are_all_alike() -> None:
    pairs = AllPairs.build(np.ones((40, 512), np.float16), (np.arange(40) // 2).astype(np.int32))
    assert len(set(pairs.similarity.tolist())) == 1
    assert pairs.thresholds([0.01]).similarity[0.01] == pairs.similarity[0]


def test_wrong_input_is_named() -> None:
    embeddings, identities = make_people(10, 20)
    with pytest.raises(IdentitySetError, match=r"\[N, D\]"):
        AllPairs.build(embeddings, identities[1:])
    with pytest.raises(IdentitySetError, match=r"\[N, D\]"):
        AllPairs.build(embeddings[0], identities)
    row = int(np.flatnonzero(identities >= 0)[5])
    for value in (0.0, np.nan, np.inf):
        broken = embeddings.copy()
        broken[row] = value
        with pytest.raises(IdentitySetError, match=f"row {row}:"):
            AllPairs.build(broken, identities)
    pairs = AllPairs.build(embeddings, identities)
    quality = np.ones(len(identities))
    quality[row] = np.nan
    with pytest.raises(IdentitySetError, match=f"row {row}:"):
        pairs.cr_fiqa_curves(quality, [0.1])
    with pytest.raises(IdentitySetError, match="one an image"):
        pairs.cr_fiqa_curves(quality[:3], [0.1])
    for fmr in (0.0, 1.5, np.nan):
        with pytest.raises(ValueError, match="false match rate"):
            pairs.thresholds([fmr])


def test_one_person_of_too_many_images_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_pairs, "MAX_GENUINE", 100)
    with pytest.raises(IdentitySetError, match="identity 7 alone has 20 images"):
        AllPairs.build(np.ones((23, 4), np.float32), np.array([7] * 20 + [1, 1, 1], np.int32))


# --- the parts --------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pairs=st.integers(1, 400),
    distinct=st.sampled_from([3, 40, 10**6]),
    spread=st.sampled_from([1e-4, 1e-3, 1.0]),
    reach=st.sampled_from([0.0, 0.7, 9.3]),
    fmr=st.sampled_from([1e-4, 0.01, 0.1, 0.5, 0.9, 1.0]),
)
def test_threshold_is_exact_though_the_counts_are_not(
    *, seed: int, pairs: int, distinct: int, spread: float, reach: float, fmr: float
) -> None:
    """Counted similarities off by up to several bins, in whatever direction."""
    rng = np.random.default_rng(seed)
    error = reach * WIDTH
    exact = (0.3 + spread * rng.integers(-distinct, distinct + 1, pairs) / distinct / 2).astype(np.float32)
    genuine = np.sort(rng.choice(exact, rng.integers(1, 20)) + np.float32(spread) * rng.choice([-0.001, 0, 0.001, 0.6]))
    genuine = genuine.astype(np.float32)
    bins = bins_of((exact + rng.choice([-error, 0.0, error], pairs)).astype(np.float32))
    counts = np.bincount(bins, minlength=BINS)
    window = find_window(counts, fmr, error + 2.0**-22)
    inside = (bins >= window.low) & (bins <= window.high)
    values, number = np.unique(exact[inside], return_counts=True)
    found = choose_threshold(window, values, number, genuine)
    same = np.repeat([False, True], [pairs, len(genuine)])
    assert found == error_reject.threshold(np.append(exact, genuine), same, fmr)


def test_window_leaves_most_pairs_out() -> None:
    similarity = np.random.default_rng(0).normal(0, 0.1, 1_000_000).clip(-1, 1).astype(np.float32)
    counts = np.bincount(bins_of(similarity), minlength=BINS)
    window = find_window(counts, 1e-2, product_error(512))
    assert counts[window.low : window.high + 1].sum() < 0.002 * len(similarity)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4]), min_size=2, max_size=12), st.integers(1, 4))
def test_levels_are_those_of_a_stable_sort(quality: list[float], rows: int) -> None:
    rates = 0.05 * np.arange(20)
    values = np.array(quality)
    levels = RejectionLevels.build(values, rates)
    a, b = np.triu_indices(len(values), 1)
    place = np.empty(len(a), np.intp)
    place[np.argsort(np.minimum(values[a], values[b]), kind="stable")] = np.arange(len(a))
    expected = np.searchsorted((rates * len(a)).astype(np.int64), place, side="right") - 1
    np.testing.assert_array_equal(levels.of_pairs(a, b), expected)
    np.testing.assert_array_equal(levels.of_pairs(b, a), expected)
    table = dict(zip(zip(a.tolist(), b.tolist(), strict=True), expected.tolist(), strict=True))
    seen = 0
    for band in levels.bands(rows):
        first, second = np.meshgrid(np.arange(band.rows.start, band.rows.stop), np.arange(len(values)), indexing="ij")
        first, second = first[second > first], second[second > first]
        ends = np.sort(np.stack([levels.order[first], levels.order[second]]), axis=0)
        assert band.levels(first, second).tolist() == [table[pair] for pair in zip(*ends.tolist(), strict=True)]
        assert band.rows.stop - band.rows.start <= rows
        seen += len(first)
    assert seen == len(a)


def test_compiled_bins_are_those_of_numpy() -> None:
    edges = bin_edges().astype(np.float32)
    values = np.concatenate([edges, np.nextafter(edges, np.float32(2)), np.nextafter(edges, np.float32(-2))])
    values = np.append(values, np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32))
    expected = np.bincount(bins_of(values), minlength=BINS)
    hidden = np.append(values, [HIDDEN] * 5).astype(np.float32)
    counts = np.zeros(PLACES, np.int64)
    count_bins(hidden, counts)
    np.testing.assert_array_equal(read_bins(counts), expected)
    blocks = TorchBlocks(np.eye(1, dtype=np.float32), (np.zeros(0, np.intp), np.zeros(0, np.intp)), "cpu")
    counted = blocks.new_counts()
    blocks.count(torch.from_numpy(hidden), counted)
    np.testing.assert_array_equal(blocks.read(counted), expected)
    assert bins_of(np.array([-1.0, 0.0, 1.0], np.float32)).tolist() == [0, BINS // 2, BINS - 1]
