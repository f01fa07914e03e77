"""`explain`: one image, its measures, and where each number comes from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Column, Table
from rich.text import Text

from data_manifests.tables.stages import LABELS, TABLES, Status
from data_manifests.weights.entry import ProbabilitiesOutput
from labelers.runtime.precision import Precision
from pipeline.commands.common import Dataset, Limit, console, job_of, require_labels
from pipeline.commands.settings import with_settings
from pipeline.config.job import Job, JobError
from pipeline.config.pixel_stages import CARRIED
from pipeline.storage.receipts import read_receipts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from pipeline.storage.fingerprint import StageSpec

_WIDTH = 44
"""Characters across the small picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Where an image's row stands.

    Attributes:
        shard: number of the shard.
        row: row within it.
        index: the row of the index.
    """

    shard: int
    row: int
    index: pa.Table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain")(with_settings(explain))


def explain(
    key: Annotated[int, typer.Argument(help="The image's key.")],
    dataset: Dataset = "",
    limit: Limit = 0,
    save: Annotated[Path | None, typer.Option("--save", help="Write the stored image to this file.")] = None,
) -> None:
    """Show an image, its measures and where each comes from.

    Example: python -m pipeline explain 42 --save face.jpg

    The key of an image is the first column of the labels.
    """
    job = job_of(dataset, limit, "labels")
    row = find_row(job, key)
    stored = job.source.read(row.index)[0]
    person = row.index["identity"][0].as_py()
    console.print(f"key {key}, person {person}, {_place(job, row.index)}", soft_wrap=True)
    if isinstance(stored, Status):
        console.print(f"the image cannot be read: {stored.value}")
    else:
        if save is not None:
            save.write_bytes(stored)
            console.print(f"written to {save}")
        _print_picture(stored)
    console.print(measures_table(job, row))
    console.print(stages_table(job))
    console.print(f"data set {job.name}: sha256 {job.stages['index'].data}", soft_wrap=True)


def find_row(job: Job, key: int) -> Row:
    """Find an image in the index.

    Raises:
        JobError: if there are no labels yet, or no such key.
    """
    index = job.stages["index"]
    require_labels(job)
    low, high = 0, job.store.shard_count(index) or 1
    while low < high:
        middle = (low + high) // 2
        table = job.store.read(index, middle)
        keys = table["key"].to_numpy()
        place = int(np.searchsorted(keys, key))
        if place < len(keys) and keys[place] == key:
            return Row(shard=middle, row=place, index=table.slice(place, 1))
        low, high = (low, middle) if place == 0 else (middle + 1, high)
    raise JobError(f"{job.name} has no image with the key {key}: see the `key` column of its labels")


def measures_table(job: Job, row: Row) -> Table:
    """Every column of the labels with its value and what made it."""
    labels = _record(job, "labels", row)
    origins = {name: stage for stage in (*CARRIED, "index") for name in (c.name for c in TABLES[stage].columns)}
    table = Table("column", "value", "made by", "source")
    for column in LABELS.written(labels):
        value = labels[column.name]
        shown = "null" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        rule = _rule(job, column.name)
        table.add_row(column.name, shown, rule or origins[column.name], column.source)
    return table


def stages_table(job: Job) -> Table:
    """What each stage rests on, and when, where and by which code it was made."""
    table = Table("stage", Column("fingerprint", no_wrap=True), "made of", "made")
    for spec in job.stages.values():
        table.add_row(spec.name, spec.fingerprint, "\n".join(_sources(spec)), _made(job, spec))
    return table


def _sources(spec: StageSpec) -> Iterator[str]:
    """The stage's code, what it reads, its network, and its settings."""
    yield f"version {spec.version}" + "".join(f", {upstream.name}" for upstream in spec.upstream)
    for model, hashes in spec.weights.items():
        precision = f", {spec.parameters.get('precision', Precision.FLOAT32)}" if "model" in spec.parameters else ""
        yield f"{model} {hashes[0][:12]}{precision}"
    settings = [f"{name} {value}" for name, value in spec.parameters.items() if name not in ("model", "precision")]
    if settings and spec.name != "labels":  # whose settings stand beside its columns
        yield ", ".join(settings)


def _made(job: Job, spec: StageSpec) -> str:
    """When, where and by which code the stage was made last; empty where its receipts are gone."""
    runs = read_receipts(job.store, spec)
    if not runs:
        return ""
    last = runs[-1]
    code = " ".join(filter(None, [last["versions"].get("fiqa-factory", ""), last.get("commit", "")]))
    where = ", ".join(filter(None, [last.get("host", ""), str(last["machine"].get("processor", ""))]))
    when = datetime.fromisoformat(last["finished"]).strftime("%Y-%m-%d %H:%M")
    return "\n".join(filter(None, [when, where, code]))


def _rule(job: Job, column: str) -> str:
    """The rule by which the labels stage makes a class or the quality; empty for what is measured."""
    rules = job.settings.labels
    texts = {
        "blur": f"{rules.blur_source.value}: hazy below {rules.blur_hazy}, clear above {rules.blur_clear}",
        "pose": f"|yaw|: frontal below {rules.yaw_frontal}, profile above {rules.yaw_profile} degrees",
        "quality": f"{rules.anchor.value}, {rules.normalise.value} over the data set",
        "status": "causes of all stages",
        "occlusion": _worse(job, "p_obstructed"),
        "expression": _worse(job, "p_exaggerated"),
        "lighting": _worse(job, "p_extreme_lighting"),
    }
    return texts.get(column, "")


def _worse(job: Job, probability: str) -> str:
    """From where on a face has the worse class, and where the network's own threshold was."""
    text = f"worse from p = {job.settings.labels.worse_probability}"
    output = job.models["factors"].output
    if not isinstance(output, ProbabilitiesOutput) or output.thresholds is None:
        return text
    was = output.thresholds[output.columns.index(probability)]
    return f"{text}; the network's threshold, {was:.3f}, was moved to 0.5"


def _record(job: Job, stage: str, row: Row) -> dict[str, Any]:
    """One row of a stage's table."""
    table = job.store.read(job.stages[stage], row.shard)
    found: dict[str, Any] = table.slice(row.row, 1).to_pylist()[0]
    return found


def _place(job: Job, index: pa.Table) -> str:
    """Where the image is stored."""
    path = index["path"][0].as_py()
    if path is not None:
        return str(job.manifest.root / path)
    return f"{job.manifest.data_path} at byte {index['offset'][0].as_py():,}, {index['length'][0].as_py():,} bytes"


def _print_picture(stored: bytes) -> None:
    """Draw the image in the terminal, two pixels a character."""
    from labelers.faces import DecodeError, decode  # noqa: PLC0415 - OpenCV is loaded by who needs it

    try:
        image = decode(stored)
    except DecodeError as error:
        console.print(f"the image does not decode: {error}")
        return
    if console.color_system in ("truecolor", "256"):
        console.print(half_blocks(image, _WIDTH))


def half_blocks(image: NDArray[np.uint8], width: int) -> Text:
    """A picture of coloured half blocks, `width` characters across, from uint8 [H, W, 3] RGB."""
    import cv2  # noqa: PLC0415 - OpenCV is loaded by who needs it

    height = 2 * round(width * image.shape[0] / image.shape[1] / 2)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    text = Text()
    for upper, lower in zip(small[0::2], small[1::2], strict=True):
        for top, bottom in zip(upper, lower, strict=True):
            text.append("▀", f"rgb({top[0]},{top[1]},{top[2]}) on rgb({bottom[0]},{bottom[1]},{bottom[2]})")
        text.append("\n")
    return text
