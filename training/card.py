"""The card of a trained quality model: what it is, from what it was made, and where not to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
- Judge it on faces of people it has not seen before relying on it: nothing below was measured on such.
"""


def write_card(facts: Mapping[str, Any], losses: Mapping[str, float]) -> str:
    """The card as Markdown.

    Args:
        facts: the content of config.json.
        losses: the mean of every term in the last epoch.
    """
    config, data = facts["config"], facts["data"]
    terms = config["terms"]
    rules = ", ".join(f"{name} {recipe}" for name, recipe in config["rules"].items())
    learned = (["quality"] if terms["quality"] else []) + list(terms["factors"])
    rows = {
        "run": f"`{facts['run']}`",
        "tower": f"{config['model']['tower']}, started from {config['model']['pretrained'] or 'random weights'}",
        "learned": ", ".join(learned),
        "score": terms["score"],
        "confidence calibration": "yes" if terms["confidence"] else "no",
        "rules": rules,
        "epochs": f"{config['epochs_one']} + {config['epochs_two']}, batch {config['batch']}, seed {config['seed']}",
        "labels": f"`{data['labels_fingerprint'] or 'no fingerprint'}`, content `{data['labels_content']}`",
        "images": f"{data['images']:,} of {data['rows']:,}"
        + "".join(f", {count:,} {cause} left out" for cause, count in data["left_out"].items()),
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
    }
    lines = ["# Face image quality model", "", "Trained as CLIB-FIQA (Ou et al., CVPR 2024) describes.", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows.items()), "", _USE]
    lines += ["## Images with each label", "", "| label | images |", "| --- | --- |"]
    for name, classes in data["counts"].items():
        lines += [f"| {name}: {label} | {count:,} |" for label, count in classes.items()]
    lines += ["", "## Losses of the last epoch, on the training images", "", "| term | mean |", "| --- | --- |"]
    lines += [f"| {name} | {value:.5f} |" for name, value in losses.items()]
    return "\n".join(lines) + "\n"
