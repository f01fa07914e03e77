"""Quality on top of a recogniser: the regression against direct solutions, its sums, folds and files."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from scipy import linalg

from data_manifests.folds import Fold
from tests.two_outputs import entry_of, write_two_outputs
from training.on_top.config import OnTopConfig
from training.on_top.export import encode_on_top
from training.on_top.fit import divide_people, rank_among
from training.on_top.ridge import BLOCK, PENALTIES, RidgeError, choose_penalty, judge, solve, sum_products
from training.on_top.scorer import OnTopError, OnTopScorer, encode_scorer, features_of, load_scorer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RECOGNISER: dict[str, Any] = {"version": 1, "parameters": {"model": "r"}, "weights": {"r": ["00"]}}


def draw(rows: int, size: int = 12, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Unit vectors with a norm of about 20 beside them, and a noisy linear function of both."""
    random = np.random.default_rng(seed)
    units = random.normal(size=(rows, size)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    norms = random.normal(20, 3, rows).astype(np.float32)
    target = units @ random.normal(size=size) + 0.05 * norms + random.normal(0, 0.3, rows)
    return features_of(units, norms), target


def solve_directly(features: NDArray[Any], target: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Ridge as least squares over the standardised rows with rows of the penalty below them."""
    wide = features.astype(np.float64)
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    rows = np.vstack([(wide - mean) / scale, np.sqrt(penalty * len(wide)) * np.eye(wide.shape[1])])
    wanted = np.append(target - target.mean(), np.zeros(wide.shape[1]))
    coefficients = linalg.lstsq(rows, wanted)[0] / scale
    return np.append(coefficients, target.mean() - mean @ coefficients)


@pytest.mark.parametrize("penalty", [1e-6, 1e-2, 10.0])
def test_ridge_is_the_direct_solution(penalty: float) -> None:
    features, target = draw(300)
    (found,) = solve(sum_products(features, target), (penalty,))
    np.testing.assert_allclose(found, solve_directly(features, target, penalty), rtol=1e-8, atol=1e-10)


def test_sums_over_shards_are_those_of_the_whole() -> None:
    features, target = draw(3 * BLOCK + 17)
    cuts = (0, 5, 5, 1000, BLOCK, len(target))
    parts = [sum_products(features[a:b], target[a:b]) for a, b in itertools.pairwise(cuts)]
    wide = np.column_stack([features.astype(np.float64), np.ones(len(target)), target])
    np.testing.assert_allclose(sum(parts), wide.T @ wide, rtol=1e-12, atol=1e-8)
    np.testing.assert_allclose(solve(np.asarray(sum(parts))), solve(sum_products(features, target)), rtol=1e-9)


def test_the_penalty_is_that_of_the_least_error_on_parts_that_were_not_fitted() -> None:
    features, target = draw(90, size=30)
    part = np.arange(len(target)) % 3
    products = np.stack([sum_products(features[part == k], target[part == k]) for k in range(3)])
    told = np.empty((len(PENALTIES), len(target)))
    for place, penalty in enumerate(PENALTIES):
        for k in range(3):
            function = solve_directly(features[part != k], target[part != k], penalty)
            told[place, part == k] = features[part == k] @ function[:-1] + function[-1]
    best, fit = choose_penalty(products)
    assert 0 < best < len(PENALTIES) - 1
    assert best == np.argmin(np.square(told - target).sum(axis=1))
    assert fit.rows == len(target)
    assert fit.r2 == pytest.approx(1 - np.square(told[best] - target).mean() / target.var(), abs=1e-9)
    assert fit.correlation == pytest.approx(np.corrcoef(told[best], target)[0, 1], abs=1e-9)


def test_a_function_is_judged_on_other_rows() -> None:
    features, target = draw(200, seed=1)
    function = solve_directly(*draw(200), 1e-3)
    told = features @ function[:-1] + function[-1]
    fit = judge(sum_products(features, target), function)
    assert fit.r2 == pytest.approx(1 - np.square(told - target).mean() / target.var(), abs=1e-9)
    assert fit.correlation == pytest.approx(np.corrcoef(told, target)[0, 1], abs=1e-9)


def test_a_feature_that_does_not_vary_and_the_unit_of_another_change_nothing() -> None:
    features, target = draw(300)
    changed = np.column_stack([features * np.append(np.ones(12), 1000.0), np.full(len(target), 7.0)])
    found, plain = solve(sum_products(changed, target)), solve(sum_products(features, target))
    assert not found[:, -2].any()
    np.testing.assert_allclose(found[:, 12] * 1000, plain[:, 12], rtol=1e-6)
    np.testing.assert_allclose(found[:, :12], plain[:, :12], rtol=1e-6)


def test_people_of_one_fold_alone_are_too_few() -> None:
    features, target = draw(10)
    products = np.stack([sum_products(features, target), np.zeros((15, 15))])
    with pytest.raises(RidgeError, match="all in one fold"):
        choose_penalty(products)
    with pytest.raises(RidgeError, match="two at the least"):
        solve(sum_products(features[:1], target[:1]))


@pytest.mark.parametrize("held_out", [None, Fold(number=1, folds=5), Fold(number=9, folds=10)])
def test_people_are_divided_evenly_whoever_is_held_out(held_out: Fold | None) -> None:
    identities = np.repeat(np.arange(-1, 20_000, dtype=np.int32), 2)
    part = divide_people(identities, OnTopConfig(held_out=held_out))
    assert (part[:2] == -1).all()
    assert (part[::2] == part[1::2]).all()
    out = part == 5
    assert (out == held_out.holds(identities)).all() if held_out else not out.any()
    counts = np.bincount(part[2:][~out[2:]], minlength=5)
    assert counts.min() > 0.9 * counts.max()


def test_a_rank_is_the_share_below_it() -> None:
    among = np.array([0.3, 0.1, 0.3, 0.9])
    np.testing.assert_array_equal(rank_among(np.array([0.0, 0.1, 0.3, 0.5, 1.0]), among), [0, 0.125, 0.5, 0.75, 1.0])


def test_a_scorer_comes_back_from_its_file(tmp_path: Path) -> None:
    features, target = draw(50)
    function = solve_directly(features, target, 1e-3)
    scorer = OnTopScorer.of(function, RECOGNISER)
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode_scorer(scorer, "0123"))
    again = load_scorer(path)
    assert again.recogniser == RECOGNISER
    told = again.score(features[:, :-1], features[:, -1])
    np.testing.assert_allclose(told, features @ function[:-1] + function[-1], rtol=1e-6)
    assert np.isnan(again.score(np.full((1, 12), np.nan), np.array([np.nan]))).all()


@pytest.mark.parametrize("content", [b"", b"{}", encode_scorer(OnTopScorer.of(np.ones(4), {}), "")[:-3]])
def test_a_file_that_holds_no_scorer_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(OnTopError, match=r"model\.safetensors"):
        load_scorer(path)
    with pytest.raises(OnTopError, match=r"nothing\.safetensors"):
        load_scorer(tmp_path / "nothing.safetensors")


def test_the_norm_of_a_recogniser_that_gives_it_goes_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = write_two_outputs(tmp_path)
    monkeypatch.setenv("FIQA_MODELS", str(tmp_path))
    random = np.random.default_rng(3)
    scorer = OnTopScorer(direction=random.normal(size=512), norm=0.7, intercept=-1.0, recogniser=RECOGNISER)
    encoded = encode_on_top(scorer, entry_of(tmp_path), {})
    faces = random.integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    with torch.no_grad():
        units, norms = network(torch.from_numpy(faces[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1)
    wanted = scorer.score(units.double().numpy(), norms[:, 0].double().numpy())
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": faces})
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-4)
