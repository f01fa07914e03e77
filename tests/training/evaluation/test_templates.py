"""Pooled templates against loops over templates and media, and true accept rates against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation import templates as module
from training.evaluation.comparison import BenchmarkError, compare_identities, compare_templates, require_directions
from training.evaluation.templates import TemplateError, Templates, lowest_quality, measure_tar, scale_quality


def draw_images(seed: int, images: int, dimension: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, templates, media and weights, in no order; media numbers occur in several templates."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((images, dimension)).astype(np.float16)
    return embeddings, rng.integers(0, 9, images) * 5, rng.integers(0, 3, images), rng.random(images)


def pool_by_loops(
    embeddings: np.ndarray, templates: np.ndarray, media: np.ndarray, weights: np.ndarray
) -> dict[int, np.ndarray]:
    """Template by template, medium by medium."""
    pooled = {}
    for template in set(templates.tolist()):
        total = np.zeros(embeddings.shape[1])
        for medium in set(media[templates == template].tolist()):
            rows = np.flatnonzero((templates == template) & (media == medium))
            total += sum(weights[row] * embeddings[row].astype(np.float64) for row in rows) / len(rows)
        pooled[template] = total / np.linalg.norm(total)
    return pooled


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.booleans())
def test_pooling_is_that_of_loops(seed: int, images: int, weighted: bool) -> None:
    embeddings, numbers, media, weights = draw_images(seed, images)
    pooled = Templates.pool(embeddings, numbers, media, weights if weighted else None)
    expected = pool_by_loops(embeddings, numbers, media, weights if weighted else np.ones(images))
    assert pooled.ids.tolist() == sorted(expected)
    assert pooled.units.dtype == np.float32
    np.testing.assert_allclose(pooled.units, [expected[number] for number in sorted(expected)], rtol=0, atol=1e-6)


def test_pooling_in_chunks_is_pooling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, numbers, media, weights = draw_images(1, 500)
    numbers[:200] = 15  # a template that is larger than a chunk
    at_once = Templates.pool(embeddings, numbers, media, weights)
    for rows in (1, 7, 100):
        monkeypatch.setattr(module, "_ROWS", rows)
        in_chunks = Templates.pool(embeddings, numbers, media, weights)
        np.testing.assert_array_equal(in_chunks.ids, at_once.ids)
        np.testing.assert_array_equal(in_chunks.units, at_once.units)


def test_a_video_counts_as_much_as_a_photo() -> None:
    embeddings = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    pooled = Templates.pool(embeddings, np.zeros(4, np.int32), np.array([1, 2, 2, 2]))
    np.testing.assert_allclose(pooled.units, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_weights_have_no_scale_and_the_worst_image_counts_nothing() -> None:
    embeddings, numbers, media, weights = draw_images(2, 50)
    plain = Templates.pool(embeddings, numbers, media, weights)
    scaled = Templates.pool(embeddings, numbers, media, weights * 1e-4)
    np.testing.assert_allclose(plain.units, scaled.units, atol=1e-6)
    quality = scale_quality(np.array([3.0, 5.0, 4.0], np.float32), np.zeros(3, np.int32))
    assert quality.tolist() == [0.0, 1.0, 0.5]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(0, 3))
def test_a_template_is_as_good_as_its_worst_image(seed: int, images: int, unscored: int) -> None:
    _, numbers, _, quality = draw_images(seed, images)
    quality[:unscored] = np.nan
    expected = [float(np.min(quality[numbers == number])) for number in sorted(set(numbers.tolist()))]
    np.testing.assert_array_equal(lowest_quality(quality, numbers), expected)


def test_templates_that_genuine_pairs_join_are_one_person() -> None:
    a, b = np.array([0, 1, 3, 0, 5, 2]), np.array([1, 4, 5, 3, 2, 0])
    same = np.array([True, True, True, False, False, False])
    similarity = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3], np.float32)
    scores = compare_templates(similarity, a, b, same, [0.5])
    assert scores.person is not None
    first, second, other = scores.person.tolist()
    assert first == second != other
    assert (scores.a.tolist(), scores.b.tolist(), scores.impostors) == ([0, 1, 3], [1, 4, 5], 3)
    assert scores.similarity.tolist() == similarity[:3].tolist()
    assert scores.accuracy is None


def test_templates_that_are_all_alike_are_refused() -> None:
    pooled = Templates.pool(np.ones((4, 3), np.float32), np.arange(4), np.zeros(4, np.int32), np.zeros(4))
    with pytest.raises(BenchmarkError, match="all 4 templates have the same embedding"):
        require_directions(pooled.units, "templates")
    with pytest.raises(BenchmarkError, match="all 4 images have the same embedding"):
        compare_identities(np.ones((4, 3), np.float32), np.ones(4, bool), np.array([0, 0, 1, 1], np.int32), [0.5])


def test_pairs_of_templates() -> None:
    embeddings, numbers, media, weights = draw_images(3, 80)
    pooled = Templates.pool(embeddings, numbers, media, weights)
    expected = pool_by_loops(embeddings, numbers, media, weights)
    a, b = (np.random.default_rng(seed).choice(pooled.ids, 100) for seed in (0, 1))
    cosines = [expected[int(i)] @ expected[int(j)] for i, j in zip(a, b, strict=True)]
    np.testing.assert_allclose(pooled.similarities(a, b), cosines, atol=1e-6)


def test_template_of_no_weight_is_like_no_other() -> None:
    pooled = Templates.pool(np.eye(2, dtype=np.float32), np.array([1, 2]), np.array([1, 1]), np.array([0.0, 1.0]))
    assert pooled.units.tolist() == [[0, 0], [0, 1]]
    assert pooled.similarities(np.array([1, 1]), np.array([1, 2])).tolist() == [0, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 400), st.sampled_from([5, 10**6]))
def test_true_accept_rate_is_that_of_counting(seed: int, pairs: int, distinct: int) -> None:
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.3
    same[:2] = [True, False]
    similarity = (rng.integers(0, distinct, pairs) / distinct + 0.2 * same).astype(np.float32)
    rates = (0.3, 0.1, 0.01)
    found = measure_tar(similarity, same, rates)
    for rate in rates:
        options = []
        for limit in sorted(set(similarity.tolist())):
            far = float((similarity[~same] >= limit).mean())
            options.append((abs(far - rate), limit, float((similarity[same] >= limit).mean())))
        assert found[rate] == pytest.approx(min(options)[2])


def test_rates_of_a_known_set() -> None:
    """A hundred impostors at 0.00 to 0.99: at an FAR of 3 % the threshold is the third highest, 0.97."""
    similarity = np.append(np.arange(100) / 100, [0.965, 0.975, 0.5, 0.99])
    same = np.arange(104) >= 100
    assert measure_tar(similarity, same, [0.03, 0.01]) == {0.03: 0.75, 0.01: 0.25}


def test_hostile_input_is_named() -> None:
    embeddings, numbers, media, weights = draw_images(4, 30)
    template = numbers[11]
    for value in (np.nan, np.inf, -0.5):
        broken = weights.copy()
        broken[11] = value
        with pytest.raises(TemplateError, match=rf"template {template} \(row 11\)"):
            Templates.pool(embeddings, numbers, media, broken)
    for value in (np.nan, np.inf):
        broken = weights.copy()
        broken[11] = value
        with pytest.raises(TemplateError, match=rf"quality .* template {template} \(row 11\)"):
            scale_quality(broken, numbers)
        images = embeddings.copy()
        images[11, 2] = value
        with pytest.raises(TemplateError, match=rf"template {template} \(row 11\)"):
            Templates.pool(images, numbers, media)
    with pytest.raises(TemplateError, match="all alike"):
        scale_quality(np.ones(30), numbers)
    with pytest.raises(TemplateError, match=r"have to be \[N, D\]"):
        Templates.pool(embeddings, numbers[1:], media)
    with pytest.raises(TemplateError, match=r"have to be \[30\]"):
        Templates.pool(embeddings, numbers, media, weights[1:])
    with pytest.raises(TemplateError, match=r"have to be \[N\]"):
        scale_quality(weights[1:], numbers)


def test_template_without_images_is_named() -> None:
    pooled = Templates.pool(*draw_images(5, 200)[:3])
    for missing in (3, -1, 10**9):
        with pytest.raises(TemplateError, match=f"the first is template {missing}:"):
            pooled.similarities(np.array([0, 5, 5]), np.array([5, missing, missing]))
    nothing = Templates.pool(np.zeros((0, 4), np.float16), np.zeros(0, np.int32), np.zeros(0, np.int32))
    with pytest.raises(TemplateError, match="template 7:"):
        nothing.similarities(np.array([7]), np.array([7]))
