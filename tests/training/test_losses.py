"""The formulas: against the released code's outputs, by hand, as properties, and where gradients are at risk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from data_manifests.recipes import Recipe
from training.losses import (
    ANCHORS,
    BETA,
    GAMMA,
    QUALITY_WEIGHT,
    confidence,
    dynamic_weights,
    emd,
    focal,
    js_divergence,
    soft_map,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

RECIPES = tuple(Recipe)
LN2 = math.log(2.0)


@pytest.fixture(scope="module")
def oracle(real_data: Path) -> Callable[[str], Mapping[str, Any]]:
    return lambda name: np.load(real_data / "oracles/losses" / f"{name}.npz")


def assert_equal(found: Tensor, wanted: object) -> None:
    np.testing.assert_allclose(found.detach().numpy(), np.asarray(wanted), rtol=1e-6, atol=2e-6)


def distributions(size: int = 5) -> st.SearchStrategy[Tensor]:
    """Distributions, sharp ones and ones with zeros among them."""
    parts = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1.0)), min_size=size, max_size=size)
    return parts.filter(lambda found: sum(found) > 0).map(
        lambda found: torch.tensor(found, dtype=torch.float64) / sum(found)
    )


class TestReleased:
    def test_soft_map(self, oracle: Callable[[str], Mapping[str, Any]]) -> None:
        data = oracle("score_to_dist")
        assert_equal(soft_map(torch.from_numpy(data["q"]), recipe=Recipe.RELEASED), data["dist_from_f64"])
        single = soft_map(torch.from_numpy(data["q"]).float(), recipe="released")
        assert single.dtype is torch.float32
        assert_equal(single, data["dist_from_f32"])
        assert_equal(single @ torch.tensor(ANCHORS), data["dist_to_score"])

    def test_soft_map_with_confidence(self, oracle: Callable[[str], Mapping[str, Any]]) -> None:
        data = oracle("score_to_dist_confid")
        rho = confidence(torch.from_numpy(data["js_dist"]))
        assert_equal(rho, data["rho"])
        assert_equal(soft_map(torch.from_numpy(data["q"]), rho=rho, recipe=Recipe.RELEASED), data["dist"])

    def test_soft_map_as_printed(self, oracle: Callable[[str], Mapping[str, Any]]) -> None:
        data = oracle("score_to_dist_paper_norm")
        assert_equal(soft_map(torch.from_numpy(data["q"])), data["dist"])

    def test_emd(self, oracle: Callable[[str], Mapping[str, Any]]) -> None:
        data = oracle("dist_distance")
        p = torch.from_numpy(data["p"]).requires_grad_()
        q = torch.from_numpy(data["q"])
        loss = emd(p, q, recipe=Recipe.RELEASED)
        loss.backward()
        assert_equal(loss, data["loss"])
        assert_equal(p.grad, data["grad_p"])
        assert_equal(emd(p, q, recipe="released", reduction="none"), data["per_sample"])
        assert_equal(emd(p, q, recipe="released", reduction="sum"), data["per_sample"].sum())
        assert_equal(emd(p, q, reduction="none"), data["paper_l1_sum"])

    @pytest.mark.parametrize("classes", [2, 3])
    def test_focal(self, oracle: Callable[[str], Mapping[str, Any]], classes: int) -> None:
        data = oracle("focal")
        p = torch.from_numpy(data[f"probs_k{classes}"]).requires_grad_()
        target = torch.from_numpy(data[f"target_k{classes}"])
        loss = focal(p.log(), target, recipe=Recipe.RELEASED)
        loss.backward()
        assert_equal(loss, data[f"loss_k{classes}"])
        assert_equal(p.grad, data[f"grad_k{classes}"])
        assert_equal(focal(p.log(), target), data[f"true_focal_k{classes}"])
        certain = torch.eye(classes)
        assert_equal(focal(certain[target].log(), target, recipe="released"), data[f"loss_perfect_k{classes}"])
        wrong = certain[(target + 1) % classes].log()
        assert_equal(focal(wrong, target, recipe="released"), data[f"loss_worst_k{classes}"])

    def test_js(self, oracle: Callable[[str], Mapping[str, Any]]) -> None:
        data = {name: torch.from_numpy(values) for name, values in oracle("cal_distance").items()}
        assert_equal(js_divergence(data["x1"], data["x2"], recipe="released"), data["js_code"])
        assert_equal(js_divergence(data["x1"], data["x3"], recipe="released"), data["js_code_x1_x3"])
        assert_equal(js_divergence(data["x1"], data["x2"]), data["true_js_of_probs"])

    def test_dynamic_weights(self, oracle: Callable[[str], Mapping[str, Any]]) -> None:
        data = oracle("dwa")
        losses = torch.from_numpy(data["losses"]).double()  # [5 epochs, 4 batches, 6 tasks]
        totals = []
        for epoch in range(5):
            weights = dynamic_weights(losses[:epoch].mean(1))
            assert_equal(weights, data["lambda_weight"][:, epoch])
            totals.extend(losses[epoch] @ weights)
        assert_equal(torch.stack(totals), data["total"])


class TestByHand:
    def test_soft_map(self) -> None:
        weights = np.exp(-10.0 * np.array([0.0, 0.2, 0.4, 0.6, 0.8]))
        assert_equal(soft_map(torch.tensor([0.1]), beta=10.0), [weights / weights.sum()])
        halved = np.exp(-5.0 * np.array([0.2, 0.0, 0.2, 0.4, 0.6]))
        assert_equal(soft_map(torch.tensor([0.3]), beta=10.0, rho=torch.tensor([0.5])), [halved / halved.sum()])
        assert (BETA, ANCHORS) == (32.0, (0.1, 0.3, 0.5, 0.7, 0.9))

    def test_emd(self) -> None:
        ends = torch.eye(5)[[0, 4]]
        assert emd(ends[:1], ends[1:]).item() == pytest.approx(4.0)
        assert emd(ends[:1], ends[1:], recipe="released").item() == pytest.approx(math.sqrt(4 / 5))
        halves = torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0, 0.0]])
        assert emd(halves[:1], halves[1:]).item() == pytest.approx(1.0)  # cumulative .5 1 1 and 0 .5 1
        assert emd(halves[:1], halves[1:], recipe="released").item() == pytest.approx(math.sqrt(0.1))

    def test_focal(self) -> None:
        log_p = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
        wanted = [0.25 * LN2, 0.01 * -math.log(0.9)]
        assert_equal(focal(log_p, torch.tensor([0, 0]), reduction="none"), wanted)
        assert focal(log_p, torch.tensor([0, 0])).item() == pytest.approx(sum(wanted) / 2)
        assert focal(log_p, torch.tensor([0, 1]), gamma=0.0).item() == pytest.approx((LN2 - math.log(0.1)) / 2)
        assert (GAMMA, QUALITY_WEIGHT) == (2.0, 10.0)

    def test_js(self) -> None:
        certain, even = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
        wanted = 0.5 * math.log(4 / 3) + 0.25 * (math.log(2 / 3) + LN2)  # the middle is .75, .25
        assert js_divergence(certain, even).item() == pytest.approx(wanted)
        assert js_divergence(certain, 1 - certain).item() == pytest.approx(LN2)

    def test_confidence(self) -> None:
        assert_equal(confidence(torch.tensor([0.0, math.log(3.0) / 32, 1e6])), [1.0, 0.75, 0.5])

    def test_released_confidence_cannot_fall_far(self) -> None:
        """The second softmax leaves one-hot distributions close to each other: rho stays within [.606, 1]."""
        one_hot = torch.eye(5, dtype=torch.float64)
        js = js_divergence(one_hot[:, None], one_hot[None], recipe="released")
        assert confidence(js).min().item() == pytest.approx(0.606, abs=5e-4)

    def test_dynamic_weights(self) -> None:
        assert_equal(dynamic_weights(torch.zeros(0, 3)), [1.0, 1.0, 1.0])
        assert_equal(dynamic_weights(torch.tensor([[5.0, 1.0]])), [1.0, 1.0])
        ratio = np.exp(np.array([0.5, 1.0]) / 2.0)
        assert_equal(dynamic_weights(torch.tensor([[9.0, 9.0], [2.0, 4.0], [1.0, 4.0]])), 2.0 * ratio / ratio.sum())


class TestProperties:
    @given(distributions(), distributions(), distributions())
    def test_emd_is_a_distance(self, p: Tensor, q: Tensor, r: Tensor) -> None:
        for recipe in RECIPES:
            there = emd(p[None], q[None], recipe=recipe)
            assert there >= 0.0
            assert there.item() == pytest.approx(emd(q[None], p[None], recipe=recipe).item(), abs=1e-12)
            assert there <= emd(p[None], r[None], recipe=recipe) + emd(r[None], q[None], recipe=recipe) + 1e-9
            assert emd(p[None], p[None], recipe=recipe) == 0.0

    @given(distributions(), distributions())
    def test_js_lies_within_its_range(self, p: Tensor, q: Tensor) -> None:
        for recipe in RECIPES:
            js = js_divergence(p, q, recipe=recipe)
            assert 0.0 <= js <= LN2 + 1e-12
            assert js.item() == pytest.approx(js_divergence(q, p, recipe=recipe).item(), abs=1e-12)
            assert 0.5 <= confidence(js) <= 1.0
        assert js_divergence(p.float(), p.float()).item() <= 1e-7

    @given(st.floats(0.0, 5.0), st.floats(0.0, 5.0))
    def test_confidence_falls_as_the_divergence_grows(self, first: float, second: float) -> None:
        near, far = (confidence(torch.tensor(js, dtype=torch.float64)) for js in sorted((first, second)))
        assert 0.5 <= far <= near <= 1.0

    @given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.5, 1.0), st.sampled_from(RECIPES))
    def test_soft_map_is_a_distribution_that_grows_with_quality(
        self, first: float, second: float, rho: float, recipe: Recipe
    ) -> None:
        q = torch.tensor(sorted((first, second)), dtype=torch.float64)
        p = soft_map(q, rho=torch.full((2,), rho, dtype=torch.float64), recipe=recipe)  # [2, 5]
        assert torch.allclose(p.sum(-1), torch.ones(2, dtype=torch.float64))
        above = p.flip(-1).cumsum(-1)  # share of the levels from the top
        assert (above[1] >= above[0] - 1e-12).all()

    @given(st.floats(0.05, 0.95), st.sampled_from(RECIPES))
    def test_less_confidence_spreads_wider(self, quality: float, recipe: Recipe) -> None:
        q = torch.full((2,), quality, dtype=torch.float64)
        sure, unsure = soft_map(q, rho=torch.tensor([1.0, 0.5]), recipe=recipe)
        assert sure.max() >= unsure.max() - 1e-12

    @given(distributions(3), st.integers(0, 2))
    def test_paper_focal_is_at_most_the_entropy(self, p: Tensor, target: int) -> None:
        assume(p[target] > 0)
        loss = focal(p[None].log(), torch.tensor([target]))
        assert 0.0 <= loss.item() <= -math.log(p[target]) + 1e-12


def hard_distributions() -> Tensor:
    """One-hot, uniform, and all but one-hot: [7, 5]."""
    nearly = torch.tensor([[1.0 - 4e-38, 1e-38, 1e-38, 1e-38, 1e-38]])
    return torch.cat([torch.eye(5), torch.full((1, 5), 0.2), nearly])


@pytest.mark.parametrize("recipe", RECIPES)
class TestGradients:
    @pytest.mark.parametrize("loss", [emd, js_divergence])
    def test_distances_are_finite_everywhere(self, loss: Callable[..., Tensor], recipe: Recipe) -> None:
        corner = hard_distributions()
        p = corner.repeat_interleave(len(corner), 0).requires_grad_()  # every pair, equal ones among them
        q = corner.repeat(len(corner), 1)
        value = loss(p, q, recipe=recipe).sum()
        value.backward()
        assert value.isfinite()
        assert p.grad is not None
        assert p.grad.isfinite().all()

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
    def test_focal_is_finite_everywhere(self, recipe: Recipe, gamma: float) -> None:
        log_p = hard_distributions().log().repeat(5, 1).requires_grad_()  # with infinities
        loss = focal(log_p, torch.arange(5).repeat_interleave(7), gamma=gamma, recipe=recipe)
        loss.backward()
        assert loss.isfinite()
        assert log_p.grad is not None
        assert log_p.grad.isfinite().all()

    def test_through_far_logits(self, recipe: Recipe) -> None:
        logits = (1e4 * torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])).requires_grad_()
        log_p = logits.log_softmax(-1)
        target = torch.tensor([0, 0])
        loss = focal(log_p, target, recipe=recipe) + emd(log_p.exp(), torch.eye(3)[target], recipe=recipe)
        loss.backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    def test_are_those_of_finite_differences(self, recipe: Recipe) -> None:
        generator = torch.Generator().manual_seed(4)
        logits, others = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
        q, target = others.softmax(-1), torch.tensor([0, 1, 2, 3, 4, -1])

        def losses(x: Tensor) -> tuple[Tensor, ...]:
            p = x.softmax(-1)
            return (
                emd(p, q, recipe=recipe),
                focal(x.log_softmax(-1), target, recipe=recipe),
                js_divergence(p, q, recipe=recipe),
            )

        assert torch.autograd.gradcheck(losses, (logits.requires_grad_(),))


@pytest.mark.parametrize("recipe", RECIPES)
class TestRowsWithoutLabel:
    def test_emd(self, recipe: Recipe) -> None:
        p = torch.rand(4, 5).softmax(-1).requires_grad_()
        q = soft_map(torch.tensor([0.2, float("nan"), 0.9, float("nan")]), recipe=recipe)
        loss = emd(p, q, recipe=recipe)
        assert loss.item() == pytest.approx(emd(p[[0, 2]], q[[0, 2]], recipe=recipe).item())
        loss.backward()
        assert p.grad is not None
        assert (p.grad[[1, 3]] == 0.0).all()
        assert p.grad.isfinite().all()
        assert emd(p, q, recipe=recipe, reduction="none").isnan().tolist() == [False, True, False, True]

    def test_focal(self, recipe: Recipe) -> None:
        log_p = torch.rand(4, 3).log_softmax(-1).requires_grad_()
        target = torch.tensor([2, -1, 0, -1], dtype=torch.int8)
        loss = focal(log_p, target, recipe=recipe)
        assert loss.item() == pytest.approx(focal(log_p[[0, 2]], target[[0, 2]], recipe=recipe).item())
        loss.backward()
        assert log_p.grad is not None
        assert (log_p.grad[[1, 3]] == 0.0).all()

    def test_none_at_all_gives_a_zero_that_propagates(self, recipe: Recipe) -> None:
        logits = torch.rand(3, 5).requires_grad_()
        log_p = logits.log_softmax(-1)
        loss = emd(log_p.exp(), torch.full((3, 5), float("nan")), recipe=recipe)
        loss = loss + focal(log_p, torch.full((3,), -1), recipe=recipe)
        loss.backward()
        assert loss.item() == 0.0
        assert logits.grad is not None
        assert (logits.grad == 0.0).all()


def test_a_released_focal_loss_of_single_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="no value for a single row"):
        focal(torch.zeros(2, 3), torch.tensor([0, 1]), recipe="released", reduction="none")


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="printed"):
        soft_map(torch.tensor([0.5]), recipe="printed")


def test_half_precision_is_computed_in_single() -> None:
    assert soft_map(torch.tensor([0.5], dtype=torch.bfloat16)).dtype is torch.float32
