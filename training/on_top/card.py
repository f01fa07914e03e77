"""The card of a quality on top: what it is, from what it was made, and where not to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_USE = """\
## Use

    python -m training.score --checkpoint THIS_FOLDER/quality.onnx --input FOLDER_OR_REC_OR_BIN --output scores.parquet
    luigi --module pipeline EvaluateQuality --benchmarks NAMES --methods on_top:THIS_FOLDER

quality.onnx holds the recogniser too: it takes faces aligned to the ArcFace template, 112 x 112 pixels, RGB. The
recogniser's licence holds for it.

## What it does not tell

- Quality here is how certainly this one recogniser tells people apart; another may stumble over other images.
- It is linear in what the recogniser gives, so it knows nothing that the recogniser does not.
- Its values compare images; they are no probability, and may lie outside the range of what was learned.
"""


def write_card(facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        facts: the content of config.json.
        metrics: the content of metrics.json.
    """
    config, recogniser = facts["config"], facts["recogniser"]
    (hashes,) = recogniser["weights"].values()
    rows = {
        "run": f"`{facts['run']}`",
        "recogniser": f"{recogniser['parameters']['model']}, `{hashes[0]}`",
        "learned": {"ratio": "the certainty ratio", "rank": "the rank of the certainty ratio"}[config["target"]],
        "penalty": f"{metrics['penalty']:.2g}, chosen by {config['folds']} folds of the people",
        "images": f"{metrics['images']:,} of {metrics['people']:,} people; {metrics['left_out']:,} without a ratio",
        "anchors": f"`{facts['anchors']}`",
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
    }
    told = "The certainty ratio of CR-FIQA (Boutros et al., CVPR 2023) by ridge regression on embedding and norm."
    lines = ["# Face image quality on top of a recogniser", "", told, ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows.items()), "", _USE]
    lines += ["## On people who were not learned from", ""]
    lines += ["| people | images | share of the variance | correlation |", "| --- | --- | --- | --- |"]
    held_out = f"held out, fold {config['held_out']}"
    for name, found in (("every fold by the others", metrics["folds"]), (held_out, metrics["held_out"])):
        if found is not None:
            lines.append(f"| {name} | {found['rows']:,} | {found['r2']:.3f} | {found['correlation']:.3f} |")
    return "\n".join(lines) + "\n"
