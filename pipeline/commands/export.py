"""`export`: labels as CSV or Parquet, or as the seven-column file that the authors' training script reads."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.shard_file import name_damage
from data_manifests.storage.values import first_line
from data_manifests.tables.stages import CLASSES, IDENTITIES, Factor, Status
from pipeline.commands.common import Dataset, Limit, console, job_of, require_labels
from pipeline.commands.settings import with_settings
from pipeline.config.job import Job, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl
    import pyarrow as pa


class ExportFormat(StrEnum):
    """What the file looks like."""

    CSV = "csv"
    PARQUET = "parquet"
    CLIB = "clib"


_PIECE = 1024
"""Images that are read and written together."""

CLIB_FACTORS = (Factor.BLUR, Factor.POSE, Factor.EXPRESSION, Factor.LIGHTING, Factor.OCCLUSION)
"""The order of the classes in the authors' file, after path and quality; 0 is the worst of each."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(with_settings(export))


def export(  # noqa: PLR0913, PLR0917 - each is an option
    output: Annotated[Path, typer.Option("--output", help="The file to write; .parquet is Parquet.")],
    dataset: Dataset = "",
    limit: Limit = 0,
    form: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="csv, parquet, or clib for the authors' loader; left out: by the file's suffix."),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="Only the rows that meet this condition on the columns, in SQL.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder to which the images of a .rec file are written, for the column path."),
    ] = None,
) -> None:
    """Write labels for other programs; of a folder of images, with every image's path and person.

    Example: python -m pipeline export --output labels.csv

    Some, with their images: python -m pipeline export --output low.csv --where "quality < 0.1" --images low

    The file of the authors' loader: python -m pipeline export --format clib --output labels.txt --images faces
    """
    if not output.absolute().parent.is_dir():
        raise JobError(f"{output}: there is no folder {output.parent}: make it, or name another file")
    if output.is_dir():
        raise JobError(f"{output}: is a folder, and --output a file: name another one")
    if images is not None and images.is_file():
        raise JobError(f"{images}: is a file, and --images a folder: name another one")
    form = form or _form_of(output)
    job = job_of(dataset, limit, "labels")
    require_labels(job)
    with name_damage(*(job.store.folder(job.stages[stage]) for stage in ("labels", "index"))):
        if form is ExportFormat.CLIB:
            if where is not None:
                raise JobError("the authors' loader wants all labels: leave --where out, or write a .csv")
            written, left_out = write_clib(job, output, images)
            text = f"; {left_out:,} images with a null class or quality are left out"
        else:
            written, text = write_table(job, output, form, where, images), ""
    console.print(f"{output} holds {written:,} rows{text}")


def _form_of(output: Path) -> ExportFormat:
    """The format that a file's suffix asks for."""
    if output.suffix not in {".parquet", ".csv", ".txt", ""}:
        raise JobError(f"{output}: call it .csv or .parquet, or say by --format what it is to hold")
    return ExportFormat.PARQUET if output.suffix == ".parquet" else ExportFormat.CSV


def write_table(
    job: Job, output: Path, form: ExportFormat, where: str | None = None, images: Path | None = None
) -> int:
    """Write all columns of the labels, and `path` and `person` where the images are files.

    Args:
        job: whose labels.
        output: the file.
        form: Parquet or CSV.
        where: a condition in SQL; None for all rows.
        images: where the images of a .rec file become files.

    Returns:
        How many rows were written.

    Raises:
        JobError: if the condition cannot be read, or is none.
    """
    import polars as pl  # noqa: PLC0415 - Polars is loaded by who needs it

    table = pl.scan_parquet(job.store.folder(job.stages["labels"]), glob=False)
    index = pl.scan_parquet(job.store.folder(job.stages["index"]), glob=False)
    if job.source.folder is not None:
        table = table.join(index.select("key", "path"), on="key", how="left", maintain_order="left")
    people = job.store.root / IDENTITIES.name / job.stages["index"].fingerprint
    if people.is_dir():
        names = pl.scan_parquet(people, glob=False).select("identity", pl.col("name").alias("person"))
        table = table.join(names, on="identity", how="left", maintain_order="left")
    try:
        if where is not None:
            condition, every = _read_condition(where), table
            table = table.filter(condition)
            if every.select(condition).collect().height < every.select(pl.len()).collect().item():
                raise JobError(_explain_condition(where, "it has one value for all rows"))
        frame = table.collect()
    except pl.exceptions.PolarsError as error:
        if where is None:
            raise
        raise JobError(_explain_condition(where, first_line(error))) from error
    if job.source.record_file is not None and images is not None:
        rows = index.join(frame.lazy().select("key"), on="key", how="semi", maintain_order="left").collect()
        pieces = (rows[start : start + _PIECE] for start in range(0, rows.height, _PIECE))
        paths = [str(path) for piece in pieces for path in image_paths(job, piece.to_arrow(), images)]
        known = pl.DataFrame({"key": rows["key"], "path": paths}, schema_overrides={"path": pl.String})
        frame = frame.join(known, on="key", how="left", maintain_order="left")

    def write(file: IO[bytes]) -> None:
        (frame.write_parquet if form is ExportFormat.PARQUET else frame.write_csv)(file)

    write_atomically(output, write)
    return frame.height


def _read_condition(where: str) -> pl.Expr:
    """A condition on the columns; a query within it, which could read other files, is none."""
    import polars as pl  # noqa: PLC0415 - see export

    outside = re.sub(r"'[^']*'|\"[^\"]*\"", "", where)
    if not where.strip() or re.search(r"\bselect\b", outside, re.IGNORECASE):
        raise JobError(_explain_condition(where, "a comparison such as quality < 0.1 is expected"))
    try:
        return pl.sql_expr(where)
    except pl.exceptions.PolarsError as error:
        raise JobError(_explain_condition(where, first_line(error))) from error


def _explain_condition(where: str, why: str) -> str:
    """What is wrong with a condition, and the remedy."""
    return (
        f"--where {where!r} is no condition on the columns of labels: {why}; `python -m pipeline describe labels` "
        "shows columns and classes, and texts stand in single quotes"
    )


def write_clib(job: Job, output: Path, images: Path | None) -> tuple[int, int]:
    """Write path, quality and five classes, separated by tabs, as the authors' loader splits them.

    Images without a quality or a class are left out: the loader knows no nulls.

    Returns:
        Rows written, and images left out.
    """
    import polars as pl  # noqa: PLC0415 - see export

    if job.source.record_file is not None and images is None:
        raise JobError("the authors' loader reads image files: give --images FOLDER, to which they are written")
    counts = [0, 0]

    def lines() -> Iterator[str]:
        for shard in sorted(job.store.present_shards(job.stages["labels"])):
            index = job.store.read(job.stages["index"], shard)
            labels = pl.DataFrame(pl.from_arrow(job.store.read(job.stages["labels"], shard)))
            usable = labels.select(pl.all_horizontal(pl.col("quality", *[f.value for f in CLIB_FACTORS]).is_not_null()))
            rows = [row for row, fits in enumerate(usable.to_series()) if fits]
            counts[0] += len(rows)
            counts[1] += len(labels) - len(rows)
            yield from _clib_lines(labels[rows], image_paths(job, index.take(rows), images))

    write_atomically(output, lambda file: file.writelines(line.encode() for line in lines()))
    return counts[0], counts[1]


def _clib_lines(labels: pl.DataFrame, paths: list[Path]) -> Iterator[str]:
    """The lines of one shard.

    Raises:
        JobError: if a path holds white space, at which the authors' loader would split it.
    """
    codes = [[CLASSES[f].index(name) for name in labels[f.value].to_list()] for f in CLIB_FACTORS]
    for path, quality, *classes in zip(paths, labels["quality"], *codes, strict=True):
        if any(c.isspace() for c in str(path)):
            raise JobError(f"{path} holds white space, at which the authors' loader splits: move the images")
        yield "\t".join([str(path), f"{quality:.9g}", *map(str, classes)]) + "\n"


def image_paths(job: Job, index: pa.Table, images: Path | None) -> list[Path]:
    """The image files of rows of the index; those of a .rec file are written first."""
    if job.source.folder is not None:
        paths = [job.source.folder / name for name in index["path"].to_pylist()]
    elif images is not None:
        images.mkdir(parents=True, exist_ok=True)
        paths = [(images / f"{key:08d}.jpg").absolute() for key in index["key"].to_pylist()]
        for path, stored in zip(paths, job.source.read(index), strict=True):
            if not isinstance(stored, Status):
                path.write_bytes(stored)
    else:
        raise JobError("give --images FOLDER")
    return paths
