"""The card of a trained network: what it is, how well it does, and where not to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMITS = """\
## What it does not tell

- The classes are those of the annotation it was trained from; another set's annotators may draw the lines elsewhere.
- {crops}
- {prior}
- The validation faces chose one threshold and one temperature a head: the AUC is untouched by that, balanced accuracy
  and calibration errors are a little too good. Whoever compares trainings by them makes all numbers too good.
"""

_CROPS = {
    True: "Faces whose landmarks were not found were cut out by their box, not aligned: of those it knows less.",
    False: "It was trained on face boxes and is used on faces aligned to the ArcFace template. Look at faces of your\n"
    "  own before trusting it there.",
}

_PRIORS = {
    "class_weights": "Both classes weighed the same in training, so a probability holds where both are equally\n"
    "  common. Where the worse class is rare it is too high as a forecast; it is meant as a score with the\n"
    "  threshold 0.5.",
    "focal": "Probabilities follow the shares of the training data, but for the shift of the thresholds.",
}


def write_card(metrics: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        metrics: the content of metrics.json.
    """
    parts = [
        f"# {metrics['name']}",
        "",
        "Tells whether an aligned face is obstructed, has an exaggerated expression, or stands in extreme light.",
        "",
        *_facts(metrics),
        "",
        "## Validation faces",
        "",
        *_scores(metrics["validation"]),
        "",
        "## Thresholds",
        "",
        *_thresholds(metrics),
        "",
    ]
    for head, found in metrics["validation"].items():
        parts += [f"### Reliability of {head}", "", *_reliability(found["reliability"]), ""]
    config = metrics["config"]
    parts.append(_LIMITS.format(crops=_CROPS[config["align"]], prior=_PRIORS[config["imbalance"]]))
    return "\n".join(parts)


def _facts(metrics: Mapping[str, Any]) -> list[str]:
    """File, input, output, data and recipe as a table."""
    given, gives, config = metrics["input"], metrics["output"], metrics["config"]
    shape = ", ".join(map(str, given["shape"]))
    crops = "aligned" if config["align"] else f"margin {config['margin']}"
    rows = {
        "file": f"`{metrics['name']}.onnx`, {metrics['bytes']} bytes",
        "sha256": f"`{metrics['sha256']}`",
        "input": f"`{given['name']}` float32 [{shape}], RGB, (level - {given['mean'][0]}) / {given['std'][0]}",
        "output": f"`{gives['name']}` float32 [batch, {len(gives['columns'])}]: {', '.join(gives['columns'])}",
        "licence": metrics["licence"],
        **{f"{part} faces": _part(found) for part, found in metrics["data"].items()},
        "recipe": f"{config['epochs']} epochs, batch {config['batch']}, seed {config['seed']}, "
        f"{crops}, {config['imbalance'].replace('_', ' ')}, {metrics['training_seconds']:.0f} s on {config['device']}",
    }
    return ["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows.items())]


def _part(found: Mapping[str, Any]) -> str:
    """The faces of one part in a sentence."""
    positives = ", ".join(f"{name} {count}" for name, count in found["positives"].items())
    return (
        f"{found['faces']} (positive: {positives}); left out: {found['left_out_invalid']} invalid, "
        f"{found['left_out_small']} too small; aligned by landmarks: {found['aligned_by_landmarks']}"
    )


def _scores(validation: Mapping[str, Any]) -> list[str]:
    """Metrics of every head as a table."""
    lines = [
        "| head | faces | positive | balanced accuracy | sensitivity | specificity | AUC | ECE | balanced ECE |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rates = ("balanced_accuracy", "sensitivity", "specificity")
    errors = ("expected_calibration_error", "balanced_calibration_error")
    for head, found in validation.items():
        numbers = " | ".join([
            *(f"{found[name]:.3f}" for name in rates), f"{found['auc']:.4f}", *(f"{found[name]:.3f}" for name in errors)
        ])  # fmt: skip
        lines.append(f"| {head} | {found['faces']} | {found['positives']} | {numbers} |")
    return lines


def _thresholds(metrics: Mapping[str, Any]) -> list[str]:
    """What the probability 0.5 was before, and what moving it there changed."""
    lines = [
        "For each head the logits are shifted so that 0.5 is where the validation faces part with the highest balanced",
        "accuracy.",
        "",
        "| head | 0.5 was | balanced accuracy there | at 0.5 before the shift |",
        "| --- | --- | --- | --- |",
    ]
    for head, found in metrics["thresholds"].items():
        rates = (
            found["probability"],
            metrics["validation"][head]["balanced_accuracy"],
            found["balanced_accuracy_at_half"],
        )
        lines.append(f"| {head} | {' | '.join(f'{rate:.3f}' for rate in rates)} |")
    return lines


def _reliability(rows: tuple[Mapping[str, Any], ...]) -> list[str]:
    """A reliability table; bins without faces are left out."""
    lines = [
        "| probability | faces | mean | share positive | the same, classes balanced |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["faces"]:
            shares = f"{row['mean_probability']:.3f} | {row['positive_share']:.3f} | {row['balanced_share']:.3f}"
            lines.append(f"| {row['lower']:.1f} to {row['upper']:.1f} | {row['faces']} | {shares} |")
    return lines
