"""The card of a trained quality model: what it is, from what it was made, and where not to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.quality.held_out import EvaluationPoint, show

if TYPE_CHECKING:
    from collections.abc import Mapping

_USE = """\
## Use

    python -m training.score --checkpoint THIS_FOLDER --input FOLDER_OR_REC_OR_BIN --output scores.parquet

It takes faces aligned to the ArcFace template, 112 x 112 pixels, RGB, and gives a quality from 0.1 to 0.9 with the
probabilities of every factor.

## What it does not tell

- Quality here is what helps one recogniser, the one of the labels; another may stumble over other images.
- Aligned faces only. Of a picture without a face it gives a number too, which means nothing.
- A score compares images; it is no probability that a comparison succeeds.
- Judge it on faces of people it has not seen before relying on it{judged}
"""

_UNJUDGED = ": nothing below was measured on such."
_JUDGED = (
    ". What is told below of people held out compares it with labels of the same kind as it learned from, not with the "
    "errors of a recogniser."
)


def write_card(facts: Mapping[str, Any], losses: Mapping[str, float], metrics: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        facts: the content of config.json.
        losses: the mean of every term in the last epoch.
        metrics: the content of metrics.json; empty where nobody was held out.
    """
    config, data = facts["config"], facts["data"]
    terms = config["terms"]
    rules = ", ".join(f"{name} {recipe}" for name, recipe in config["rules"].items())
    learned = (["quality"] if terms["quality"] else []) + list(terms["factors"])
    left_out = ", ".join(f"{count:,} {cause}" for cause, count in data["left_out"].items() if count)
    rows = {
        "run": f"`{facts['run']}`",
        "tower": f"{config['model']['tower']}, started from {config['model']['pretrained'] or 'random weights'}",
        "prompts": config["model"]["prompts"],
        "learned": ", ".join(learned),
        "score": terms["score"],
        "confidence calibration": "yes" if terms["confidence"] else "no",
        "rules": rules,
        "epochs": f"{config['epochs_one']} + {config['epochs_two']}, batch {config['batch']}, seed {config['seed']}",
        "labels": f"`{data['labels_fingerprint'] or 'no fingerprint'}`, content `{data['labels_content']}`",
        "images": f"{data['images']:,} of {data['rows']:,}{left_out and f', left out: {left_out}'}",
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
    }
    lines = ["# Face image quality model", "", "Trained as CLIB-FIQA (Ou et al., CVPR 2024) describes.", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows.items()), ""]
    lines += [_USE.format(judged=_JUDGED if metrics else _UNJUDGED)]
    if metrics:
        lines += _describe_held_out(config["held_out"], metrics)
    lines += ["## Images with each label", "", "| label | images |", "| --- | --- |"]
    for name, classes in data["counts"].items():
        lines += [f"| {name}: {label} | {count:,} |" for label, count in classes.items()]
    lines += ["", "## Losses of the last epoch, on the training images", "", "| term | mean |", "| --- | --- |"]
    lines += [f"| {name} | {value:.5f} |" for name, value in losses.items()]
    return "\n".join(lines) + "\n"


def _describe_held_out(fold: Mapping[str, int], metrics: Mapping[str, Any]) -> list[str]:
    """How the model did on people held out, at every moment at which it was measured."""
    *_, last = metrics.values()
    rows = {"Spearman of score and quality": [found["spearman"] for found in metrics.values()]}
    for factor in last["balanced_accuracy"]:
        rows[f"balanced accuracy of {factor}"] = [found["balanced_accuracy"][factor] for found in metrics.values()]
    lines = [f"| {name} | {' | '.join(map(show, values))} |" for name, values in rows.items()]
    return [
        "## On people held out",
        "",
        f"The model has not learned from fold {fold['number']}/{fold['folds']} of the people (`data_manifests.folds`). "
        f"People: {last['people']:,}, images: {last['images']:,}.",
        "",
        f"| | {' | '.join(EvaluationPoint(moment).words for moment in metrics)} |",
        "| --- |" + " --- |" * len(metrics),
        *lines,
        "",
    ]
