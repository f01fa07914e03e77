"""Loss, similarities and margins of CR-FIQA against its authors' code, and their gradients against differences."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from training.recognition.config import Margin, Target
from training.recognition.head import ClassHead
from training.recognition.objective import add_margin, regression_loss, regression_target
from training.trainer.ranks import Ranks

if TYPE_CHECKING:
    from pathlib import Path

ALONE = Ranks(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def oracle(real_data: Path) -> dict[str, torch.Tensor]:
    with np.load(real_data / "oracles" / "cr" / "cr.npz") as file:
        return {name: torch.from_numpy(values) for name, values in file.items()}


def head_of(kernel: torch.Tensor, margin: Margin = Margin.ARCFACE, scale: float = 64.0) -> ClassHead:
    """A head whose weights are the columns of a kernel [D, C]."""
    dimension, classes = kernel.shape
    head = ClassHead(classes=classes, dimension=dimension, margin=margin, size=0.5, scale=scale, ranks=ALONE)
    head.weight = torch.nn.Parameter(kernel.T.contiguous())
    return head


def test_similarities_are_those_of_the_authors_code(oracle: dict[str, torch.Tensor]) -> None:
    found = head_of(oracle["kernel"].double())(oracle["emb"].double(), oracle["label"])
    ccs, nnccs = found.ccs, found.nnccs
    torch.testing.assert_close(ccs, oracle["ccs_f64"], rtol=0, atol=1e-6)
    torch.testing.assert_close(nnccs, oracle["true_nnccs_unfloored"], rtol=0, atol=1e-6)
    torch.testing.assert_close(nnccs.clamp(min=-1e-12), oracle["nnccs_f64"], rtol=0, atol=1e-6)
    # The oracle's own NNCCS is floored, so the ratio of the paper is compared where the floor is not reached.
    above = oracle["nnccs_f64"] > 0
    ratio = regression_target(ccs, nnccs, Target.CERTAINTY_RATIO)
    torch.testing.assert_close(ratio[above], oracle["cr_paper_f64"][above], rtol=0, atol=1e-6)
    plain = regression_target(oracle["ccs_f64"], oracle["nnccs_f64"], Target.PLAIN_RATIO)
    torch.testing.assert_close(plain, oracle["ratio_plain_f64"], rtol=1e-6, atol=1e-6)
    assert regression_target(ccs, nnccs, Target.CCS) is not ccs
    assert torch.equal(regression_target(ccs, nnccs, Target.CCS), ccs)


def test_loss_is_the_cross_entropy_of_the_authors_logits(oracle: dict[str, torch.Tensor]) -> None:
    logits, labels = oracle["arcface_logits_f32_first64"], oracle["label"][:64]
    found = head_of(oracle["kernel"].double())(oracle["emb"][:64].double(), labels)
    expected = functional.cross_entropy(logits.double(), labels, reduction="none")
    # Their logits are float32 of up to 64, and the angle of an embedding upon its centre is lost in float32.
    clear = oracle["ccs_f64"][:64].abs() < 0.999
    assert clear.sum() >= 60
    torch.testing.assert_close(found.loss[clear], expected[clear], rtol=0, atol=2e-5)
    own = add_margin(oracle["ccs_f64"][:64], Margin.ARCFACE, 0.5)
    theirs = logits.double().gather(1, labels[:, None])[:, 0] / 64
    torch.testing.assert_close(own[clear], theirs[clear], rtol=0, atol=1e-6)
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("margin", Margin)
def test_margins_are_what_they_say(margin: Margin) -> None:
    angles = torch.linspace(0.01, 2.6, 50, dtype=torch.float64)
    expected = (angles + 0.35).cos() if margin is Margin.ARCFACE else angles.cos() - 0.35
    torch.testing.assert_close(add_margin(angles.cos(), margin, 0.35), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("margin", Margin)
def test_gradients_are_those_of_differences(margin: Margin) -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 2, 2, 4, 1])
    embeddings = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)

    def compute(embeddings: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        head = head_of(kernel.detach(), margin, scale=8.0)
        return torch.func.functional_call(head, {"weight": kernel.T}, (embeddings, labels)).loss

    assert gradcheck(compute, (embeddings, kernel))
    targets = torch.tensor([0.1, 0.9, -0.4], dtype=torch.float64)
    said = torch.tensor([0.2, 3.0, -0.1], dtype=torch.float64, requires_grad=True)
    assert gradcheck(partial(regression_loss, targets=targets, threshold=0.5), said)


def test_an_image_upon_its_centre_has_a_finite_gradient() -> None:
    head = head_of(torch.eye(4))
    embeddings = torch.tensor([[1.0, 0, 0, 0], [0, -1.0, 0, 0]], requires_grad=True)
    head(embeddings, torch.tensor([0, 1])).loss.sum().backward()
    assert embeddings.grad is not None
    assert bool(embeddings.grad.isfinite().all())


def test_no_gradient_passes_through_the_ratio() -> None:
    """The regression layer follows the ratio; the embedding may not be pulled to make the ratio easy to foretell."""
    kernel = torch.randn(6, 5)
    found = head_of(kernel)(torch.randn(3, 6, requires_grad=True), torch.tensor([0, 1, 2]))
    for target in Target:
        assert not regression_target(found.ccs, found.nnccs, target).requires_grad


def test_regression_loss_by_hand() -> None:
    """CR-FIQA Eq. 5: half the square over beta below beta, a straight line above."""
    found = regression_loss(torch.tensor([1.0, 1.0]), torch.tensor([0.8, -1.0]), 0.5)
    torch.testing.assert_close(found, torch.tensor([0.5 * 0.2**2 / 0.5, 2.0 - 0.25]))


def test_one_person_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="1 people for 1 processes"):
        ClassHead(classes=1, dimension=4, margin=Margin.ARCFACE, size=0.5, scale=64.0, ranks=ALONE)
