"""What a step minimises, against the paper's equations written out, and shared out in any way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.folds import Fold
from data_manifests.recipes import Recipe
from data_manifests.tables.stages import Factor
from training.losses import emd, focal, soft_map
from training.quality.config import Rules, Score, Terms, TrainingConfig
from training.quality.model import log_marginals
from training.quality.objective import Objective, Targets
from training.trainer.schedule import rate_share


def drawn(count: int, seed: int = 0, nulls: float = 0.3) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    random = np.random.default_rng(seed)
    log_joint = torch.from_numpy(random.normal(size=(count, 360))).log_softmax(-1)
    merged = torch.from_numpy(random.random((count, 5))).softmax(-1)
    quality = np.where(random.random(count) < nulls, np.nan, random.random(count))
    classes = random.integers(0, [3, 2, 3, 2, 2], (count, 5))
    classes[random.random((count, 5)) < nulls] = -1
    targets = Targets(
        quality=torch.from_numpy(quality), classes=torch.from_numpy(classes), rho=torch.from_numpy(random.random(count))
    )
    return log_joint, merged, targets


def counted(objective: Objective, targets: Targets) -> tuple[int, ...]:
    return objective.count(targets.quality.numpy().astype(np.float32), targets.classes.numpy().astype(np.int8))


def test_the_terms_are_those_of_the_paper() -> None:
    objective = Objective(TrainingConfig())
    log_joint, merged, targets = drawn(40, nulls=0.0)
    shares = objective.shares(log_joint, merged, targets, counted(objective, targets))
    found = dict(zip(objective.names, shares.tolist(), strict=True))
    marginals = log_marginals(log_joint)
    calibrated = soft_map(targets.quality, 32.0, targets.rho)
    assert found["quality"] == pytest.approx(float(emd(marginals.quality.exp(), calibrated)))
    # The merged-factor network learns the plain P_q: confidence would be measured with its own yardstick.
    assert found["merged"] == pytest.approx(float(emd(merged, soft_map(targets.quality, 32.0))))
    for place, factor in enumerate(Factor):
        wanted = float(focal(marginals.of(factor), targets.classes[:, place]))
        assert found[factor.value] == pytest.approx(wanted)
    weights = dict(zip(objective.names, objective.weights([]), strict=True))
    # Eq. 5: the mean over the factors; Eq. 7: lambda 10.
    assert weights == {"quality": 10.0, **{factor.value: 0.2 for factor in Factor}, "merged": 1.0}


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(0, 999), st.data())
def test_shares_add_up_however_the_batch_is_cut(count: int, seed: int, data: st.DataObject) -> None:
    objective = Objective(TrainingConfig())
    log_joint, merged, targets = drawn(count, seed)
    counts = counted(objective, targets)
    whole = objective.shares(log_joint, merged, targets, counts)
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=4)))
    total = torch.zeros_like(whole)
    for start, stop in zip([0, *cuts], [*cuts, count], strict=True):
        part = Targets(
            quality=targets.quality[start:stop], classes=targets.classes[start:stop], rho=targets.rho[start:stop]
        )
        total += objective.shares(log_joint[start:stop], merged[start:stop], part, counts)
    torch.testing.assert_close(total, whole, rtol=1e-12, atol=1e-14)


def test_rows_without_a_label_take_no_part_and_still_teach_the_others() -> None:
    objective = Objective(TrainingConfig())
    log_joint, merged, targets = drawn(12, nulls=0.0)
    targets.quality[:6] = math.nan
    targets.classes[6:] = -1
    joint = log_joint.clone().requires_grad_()
    shares = objective.shares(joint, merged, targets, counted(objective, targets))
    (quality,) = torch.autograd.grad(shares[0], joint, retain_graph=True)
    (factors,) = torch.autograd.grad(shares[1:6].sum(), joint)
    assert (quality[:6] == 0).all()
    assert (quality[6:].abs().sum(1) > 0).all()
    assert (factors[:6].abs().sum(1) > 0).all()
    assert (factors[6:] == 0).all()
    half = Targets(quality=targets.quality[6:], classes=targets.classes[6:], rho=targets.rho[6:])
    alone = objective.shares(log_joint[6:], merged[6:], half, counted(objective, half))
    assert shares[0].item() == pytest.approx(alone[0].item())


def test_a_batch_without_any_label_gives_zeros_that_propagate() -> None:
    objective = Objective(TrainingConfig())
    log_joint, merged, targets = drawn(3)
    targets.quality[:] = math.nan
    targets.classes[:] = -1
    joint = log_joint.clone().requires_grad_()
    shares = objective.shares(joint, merged, targets, counted(objective, targets))
    shares.sum().backward()
    assert shares.tolist() == [0.0] * 7
    assert joint.grad is not None
    assert (joint.grad == 0).all()


ROWS = {
    "NQF": Terms(factors=(), confidence=False),
    "M-F": Terms(quality=False, score=Score.MERGED, confidence=False),
    "+Pose": Terms(factors=(Factor.POSE,), confidence=False),
    "+Pose, Blur": Terms(factors=(Factor.BLUR, Factor.POSE), confidence=False),
    "all": Terms(confidence=False),
    "all, CC": Terms(),
}


@pytest.mark.parametrize(
    ("row", "names", "weights"),
    [
        ("NQF", ("quality",), (10.0,)),
        ("M-F", (*Factor, "merged"), (0.2,) * 5 + (1.0,)),
        ("+Pose", ("quality", "pose"), (10.0, 1.0)),
        ("+Pose, Blur", ("quality", "blur", "pose"), (10.0, 0.5, 0.5)),
        ("all", ("quality", *Factor), (10.0,) + (0.2,) * 5),
        ("all, CC", ("quality", *Factor, "merged"), (10.0,) + (0.2,) * 5 + (1.0,)),
    ],
)
def test_rows_of_table_4_are_configurations(row: str, names: tuple[str, ...], weights: tuple[float, ...]) -> None:
    objective = Objective(TrainingConfig(terms=ROWS[row]))
    log_joint, merged, targets = drawn(20)
    assert objective.names == names
    assert objective.weights([]) == pytest.approx(weights)
    shares = objective.shares(log_joint, merged if "merged" in names else None, targets, counted(objective, targets))
    assert shares.shape == (len(names),)
    assert (shares > 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": False, "factors": (), "confidence": False},
        {"quality": False, "score": Score.MERGED},
        {"quality": False, "confidence": False},
        {"factors": ()},
        {"factors": (), "score": Score.MERGED, "confidence": False},
        {"factors": (Factor.POSE, Factor.POSE)},
    ],
)
def test_what_cannot_be_learned_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Terms(**wrong)  # type: ignore[arg-type]


def test_released_weights_follow_the_means_of_the_epochs() -> None:
    """Dynamic weight averaging, T 2, six tasks (released code), worked by hand; lambda stays a factor of quality."""
    objective = Objective(TrainingConfig(rules=Rules.of(Recipe.RELEASED)))
    means = [[0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0], [0.25, 1.0, 0.5, 1.0, 2.0, 1.0, 9.0]]
    assert objective.weights([]) == (10.0,) + (1.0,) * 6
    assert objective.weights(means[:1]) == (10.0,) + (1.0,) * 6
    parts = [math.exp(ratio / 2) for ratio in (0.5, 1.0, 0.5, 1.0, 2.0, 1.0)]
    wanted = [6 * part / sum(parts) for part in parts]
    assert objective.weights(means) == pytest.approx((10 * wanted[0], *wanted[1:], 1.0))


def test_a_rule_can_be_set_alone() -> None:
    log_joint, merged, targets = drawn(20, nulls=0.0)
    paper = TrainingConfig()
    shares = {}
    for name in ("mapping", "distance", "focal"):
        objective = Objective(replace(paper, rules=replace(Rules(), **{name: Recipe.RELEASED})))
        shares[name] = objective.shares(log_joint, merged, targets, counted(objective, targets))
    plain = Objective(paper).shares(log_joint, merged, targets, counted(Objective(paper), targets))
    changed = {name: {i for i in range(7) if not math.isclose(found[i], plain[i])} for name, found in shares.items()}
    assert changed == {"mapping": {0, 6}, "distance": {0, 6}, "focal": {1, 2, 3, 4, 5}}


def test_the_papers_rate_is_one_cosine_over_all_steps() -> None:
    shares = [rate_share(step, steps=10, epochs=25, recipe=Recipe.PAPER) for step in range(251)]
    assert shares[0] == 1.0
    assert shares[125] == pytest.approx(0.5)
    assert shares[-1] == pytest.approx(0.0)
    assert (np.diff(shares) < 0).all()


@pytest.mark.parametrize("warm_up", [0.04, 0.2, 0.999])
def test_a_warm_rate_rises_in_a_line_and_falls_in_a_cosine(warm_up: float) -> None:
    shares = [rate_share(step, steps=10, epochs=25, recipe=Recipe.PAPER, warm_up=warm_up) for step in range(250)]
    rising = round(250 * warm_up)
    assert shares[:rising] == pytest.approx([(step + 1) / (rising + 1) for step in range(rising)])
    if rising < 250:
        falling = 250 - rising
        assert shares[rising] == 1.0
        wanted = [(1 + math.cos(math.pi * step / falling)) / 2 for step in range(falling)]
        assert shares[rising:] == pytest.approx(wanted)
    assert 0 < min(shares) <= max(shares) <= 1


def test_the_released_rate_takes_no_warm_up() -> None:
    with pytest.raises(ValueError, match="no warm-up"):
        rate_share(0, steps=10, epochs=25, recipe=Recipe.RELEASED, warm_up=0.1)
    with pytest.raises(ValueError, match="the released schedule has no warm_up"):
        TrainingConfig(rules=Rules.of(Recipe.RELEASED), warm_up=0.1)
    assert TrainingConfig(rules=replace(Rules.of(Recipe.RELEASED), schedule=Recipe.PAPER), warm_up=0.1).warm_up == 0.1


def test_the_released_rate_is_pytorchs_with_a_period_of_five() -> None:
    """CosineAnnealingLR(T_max=5), stepped once an epoch for 25 epochs: it falls, rises, and ends high."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=5)
    for epoch in range(25):
        wanted = optimiser.param_groups[0]["lr"]
        for step in (10 * epoch, 10 * epoch + 9):
            found = rate_share(step, steps=10, epochs=25, recipe=Recipe.RELEASED)
            assert found == pytest.approx(wanted, abs=1e-9)
        optimiser.step()
        scheduler.step()


def test_the_defaults_are_those_of_the_paper() -> None:
    """CLIB-FIQA section 4.1 and 3.2; what the paper leaves open is the released code's: rates, clipping, seed."""
    config = TrainingConfig()
    assert (config.epochs_one, config.epochs_two, config.batch) == (5, 20, 256)
    assert (config.gamma, config.beta, config.balance) == (2.0, 32.0, 10.0)
    assert (config.learning_rate, config.merged_learning_rate, config.weight_decay) == (1e-5, 1e-3, 1e-3)
    assert (config.clip, config.seed) == (5.0, 323)
    assert config.model.tower == "RN50-quickgelu"


def test_only_what_decides_the_weights_names_a_run() -> None:
    config = TrainingConfig()
    name = config.fingerprint("abc", 100)
    same = replace(config, threads=9, checkpoint_every=7, keep=1, log_every=3)
    assert same.fingerprint("abc", 100) == name
    others = [replace(config, beta=25.0), replace(config, epochs_one=6), replace(config, terms=ROWS["all"])]
    names = {other.fingerprint("abc", 100) for other in others}
    folds = [replace(config, held_out=Fold(number=number, folds=folds)) for number, folds in ((0, 5), (1, 5), (0, 6))]
    names |= {other.fingerprint("abc", 100) for other in (*folds, replace(config, warm_up=0.1))}
    names |= {config.fingerprint("abd", 100), config.fingerprint("abc", 101), name}
    assert len(names) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0}, {"keep": 0}, {"epochs_one": 0}, {"epochs_two": -1}, {"beta": 0.0}, {"clip": math.nan},
        {"warm_up": -0.1}, {"warm_up": 1.0}, {"warm_up": math.nan},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(TrainingConfig(), **wrong)
