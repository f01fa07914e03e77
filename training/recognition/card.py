"""The card of a trained recogniser: what it is, from what it was made, and where not to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_USE = """\
## Use

Labels by its embeddings and its own class centres (`head` is the file `head.safetensors` beside this card):

    FIQA_MODELS=THIS_FOLDER luigi --module pipeline LabelAll --dataset NAME --models-recognition {name} \\
        --anchors-centres head --anchors-head THIS_FOLDER/head.safetensors

Qualities of any aligned faces, 112 x 112 pixels:

    python -m training.score --checkpoint THIS_FOLDER/quality.onnx --input FOLDER_OR_REC_OR_BIN --output scores.parquet

## What it does not tell

- Quality here is how near an image would be to its person's centre beside the nearest other one, for this recogniser.
- The centres are those of the people below; images of anybody else get no quality by them (`no_centre`).
- Aligned faces only. Of a picture without a face it gives a number too, which means nothing.
- Judge it on people whom it has not seen before relying on it: nothing below was measured on such.
"""


def write_card(facts: Mapping[str, Any], losses: Mapping[str, float], name: str) -> str:
    """The card as Markdown.

    Args:
        facts: the content of config.json.
        losses: the mean of every term in the last whole epoch; empty where there was none.
        name: of the network, in models.toml.
    """
    config, data = facts["config"], facts["data"]
    left_out = ", ".join(f"{count:,} {cause}" for cause, count in data["left_out"].items() if count)
    share = config.get("sample_rate", 1.0)
    sampled = "" if share == 1 else f", over {share:.2%} of the people in a step"
    rows = {
        "run": f"`{facts['run']}`",
        "backbone": f"{config['backbone']}, started from {config['pretrained'] or 'random weights'}",
        "softmax": f"{config['margin']}, margin {config['margin_size']}, scale {config['scale']}{sampled}",
        "regression": f"{config['target']}, weight {config['balance']}, threshold {config['threshold']}",
        "steps": f"{config['steps']:,} of {config['batch']} images, seed {config['seed']}",
        "learning rate": f"{config['learning_rate']}, a tenth from each of the steps {config['drops']}",
        "images": f"{data['images']:,} of {data['people']:,} people{left_out and f'; left out: {left_out}'}",
        "data": f"content `{data['content']}`",
        "versions": ", ".join(f"{package} {number}" for package, number in facts["versions"].items()),
    }
    lines = ["# Face recogniser with a quality", "", "Trained as CR-FIQA (Boutros et al., CVPR 2023) describes.", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {title} | {text} |" for title, text in rows.items()), ""]
    lines += [_USE.format(name=name)]
    if losses:
        lines += ["## Losses of the last whole epoch, on the training images", "", "| term | mean |", "| --- | --- |"]
        lines += [f"| {term} | {value:.5f} |" for term, value in losses.items()]
    return "\n".join(lines) + "\n"
