"""Damages a finished workspace in every way at every stage, runs the real command, and says what came of it.

    python -m benchmarks.faults            # some 20 minutes on two cores; prints the table of docs/guarantees.md
    python -m benchmarks.faults --only "zeroed" --stages blur,labels

A damage is mended where the same command ends with code 0 and every shard has the bytes that it had; it is named where
the command says in one line which file is damaged and what to do. All else is a fault of the product.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_manifests.storage.parquet import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STAGES = ("index", "blur", "pose", "factors", "embeddings", "centres", "anchors", "anchor_range", "labels")
FLOATS = {
    "blur": "cpbd", "pose": "yaw_deg", "factors": "p_obstructed", "embeddings": "norm", "anchors": "ccs",
    "anchor_range": "certainty_ratio_max", "labels": "quality",
}  # fmt: skip
"""A column of numbers of every stage that has one."""
RECHECK = "--recheck"
UNREAD = ("centres", "labels")
"""Stages whose values nothing reads when the labels are made again: there only `--recheck` can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One way to damage a workspace.

    Attributes:
        name: in words.
        apply: takes the data set's folder and the stage, and damages it; False where that stage cannot be damaged so.
        options: of the command that must find it.
        before_labels: whether the labels are taken away, so that what is damaged is read.
    """

    name: str
    apply: Callable[[Path, str], object]
    options: tuple[str, ...] = ()
    before_labels: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a damage: `mended`, `named`, or what was wrong; and the command's words."""

    result: str
    said: str


def shard_of(folder: Path, stage: str) -> Path:
    """The first shard of a stage."""
    return (folder / stage / "current").resolve() / "shard-00000.parquet"


def receipt_of(folder: Path, stage: str, pattern: str) -> Path:
    """The first file of a stage's receipts whose name fits."""
    return min((folder / "_receipts" / stage).glob(f"*/{pattern}"))


def replace(path: Path, content: bytes) -> None:
    """Write other bytes at a path, whatever shares the file under other names."""
    path.unlink()
    path.write_bytes(content)


def change_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path, str], None]:
    """A damage of a shard's bytes."""
    return lambda folder, stage: replace(path := shard_of(folder, stage), change(path.read_bytes()))


def change_table(change: Callable[[pa.Table, str], pa.Table | None]) -> Callable[[Path, str], bool]:
    """A damage of a shard's table, written as whole as the product writes it."""

    def apply(folder: Path, stage: str) -> bool:
        path = shard_of(folder, stage)
        table = change(pq.read_table(path), stage)
        if table is not None:
            path.unlink()
            write_table(path, table)
        return table is not None

    return apply


def edit_values(folder: Path, stage: str) -> bool:
    """Two values of a column changed for each other, in a file of as many bytes as before: its size shall not tell."""
    path, name = shard_of(folder, stage), FLOATS.get(stage)
    if name is None:
        return False
    table, size = pq.read_table(path), path.stat().st_size
    values, place = table[name].to_numpy(), table.schema.get_field_index(name)
    path.unlink()
    for row in range(1, 1000):
        edited = values.copy()
        if len(values) > 1:
            edited[[0, row % len(values)]] = edited[[row % len(values), 0]]
        else:
            edited *= 1 - row / 1000
        column = pa.array(edited, table[name].type, from_pandas=True)
        write_table(path, table.set_column(place, table.schema.field(place), column))
        if path.stat().st_size == size and not np.array_equal(edited, values, equal_nan=True):
            return True
    raise RuntimeError(f"{stage}: every edit of {name} gives a file of another size")


def other_keys(table: pa.Table, stage: str) -> pa.Table | None:
    """Every key one higher."""
    if "key" not in table.column_names or stage == "index":
        return None
    return table.set_column(0, table.schema.field(0), pc.add(table["key"], pa.scalar(1, pa.int32())))


def other_metadata(table: pa.Table, **change: str) -> pa.Table:
    """Other file metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **change})


def zero_pages(content: bytes) -> bytes:
    """Zeros in the pages, the footer as it was."""
    footer = int.from_bytes(content[-8:-4], "little") + 8
    return content[:4] + bytes(len(content) - 4 - footer) + content[-footer:]


def in_its_place(find: Callable[[Path, str], Path], *, folder: bool) -> Callable[[Path, str], None]:
    """A folder or a file in place of what was there."""

    def apply(root: Path, stage: str) -> None:
        path = find(root, stage)
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        if folder:
            path.mkdir()
        else:
            path.write_text("not what is expected here")

    return apply


def receipts(what: str, pattern: str) -> Iterator[Damage]:
    """The damages of a JSON file of the receipts."""
    changes: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda content: content[: len(content) // 2],
        "zeroed": lambda content: bytes(len(content)),
        "a list": lambda _: b"[1, 2]\n",
        "of other fields": lambda _: b'{"a": 1}\n',
    }
    for name, change in changes.items():

        def apply(folder: Path, stage: str, change: Callable[[bytes], bytes] = change) -> None:
            path = receipt_of(folder, stage, pattern)
            replace(path, change(path.read_bytes()))

        yield Damage(name=f"{what} {name}", apply=apply)


SHARDS = (
    Damage(name="truncated", apply=change_bytes(lambda content: content[: len(content) // 2])),
    Damage(name="without its last bytes", apply=change_bytes(lambda content: content[:-9])),
    Damage(name="zeroed", apply=change_bytes(lambda content: bytes(len(content)))),
    Damage(name="empty", apply=change_bytes(lambda _: b"")),
    Damage(name="of noise", apply=change_bytes(lambda content: b"PAR1" + os.urandom(len(content) - 8) + b"PAR1")),
    Damage(name="deleted", apply=lambda folder, stage: shard_of(folder, stage).unlink()),
    Damage(name="a folder", apply=in_its_place(shard_of, folder=True)),
    Damage(name="fewer rows", apply=change_table(lambda table, _: table.slice(0, table.num_rows - 1))),
    Damage(name="a column less", apply=change_table(lambda table, _: table.drop_columns([table.column_names[-1]]))),
    Damage(
        name="a column of another type",
        apply=change_table(lambda table, _: table.set_column(0, table.column_names[0], table[0].cast(pa.string()))),
    ),
    Damage(name="without metadata", apply=change_table(lambda table, _: table.replace_schema_metadata(None))),
    Damage(
        name="of another fingerprint", apply=change_table(lambda table, _: other_metadata(table, fingerprint="0" * 12))
    ),
    Damage(name="of another stage", apply=change_table(lambda table, _: other_metadata(table, stage="other"))),
    Damage(
        name="a second one",
        apply=lambda folder, stage: shutil.copy(p := shard_of(folder, stage), p.with_name("shard-00001.parquet")),
    ),
    Damage(name="pages zeroed", apply=change_bytes(zero_pages), options=(RECHECK,)),
    Damage(name="pages zeroed, then read", apply=change_bytes(zero_pages), before_labels=True),
    Damage(name="values edited", apply=edit_values, options=(RECHECK,)),
    Damage(
        name="values edited before labels",
        apply=edit_values,
        options=(RECHECK,),
        before_labels=True,
    ),
    Damage(name="other keys", apply=change_table(other_keys), options=(RECHECK,)),
    Damage(name="other keys, then read", apply=change_table(other_keys), before_labels=True),
)
"""Damages of a stage's shard."""

PLACES = (
    Damage(name="`current` a folder", apply=in_its_place(lambda f, s: f / s / "current", folder=True)),
    Damage(name="`current` a file", apply=in_its_place(lambda f, s: f / s / "current", folder=False)),
    Damage(name="stage's folder a file", apply=in_its_place(lambda f, s: f / s, folder=False)),
    Damage(
        name="fingerprint's folder a file",
        apply=in_its_place(lambda f, s: (f / s / "current").resolve(), folder=False),
    ),
    Damage(name="receipts' folder a file", apply=in_its_place(lambda f, s: f / "_receipts" / s, folder=False)),
    *receipts("receipt", "run-*.json"),
    *receipts("made_from.json", "made_from.json"),
    *receipts("shards.log", "shards.log"),
)
"""Damages of what lies beside a stage's shards."""

ONCE = (
    Damage(name="`.lock` a folder", apply=in_its_place(lambda f, _: f / ".lock", folder=True), before_labels=True),
    Damage(name="`.lock.json` a list", apply=lambda f, _: replace(f / ".lock.json", b"[]"), before_labels=True),
    Damage(name="`_receipts` a file", apply=in_its_place(lambda f, _: f / "_receipts", folder=False)),
    Damage(
        name="`_staging` a file",
        apply=in_its_place(lambda f, _: f / "_staging", folder=False),
        before_labels=True,
    ),
    *(
        Damage(
            name=f"data.json {name}",
            apply=lambda f, _, content=content: (f / "_receipts/data.json").write_bytes(content),
        )
        for name, content in {
            "cut": b'{"a',
            "zeroed": bytes(99),
            "a list": b"[1]",
            "of other fields": b'{"a": 1}',
        }.items()
    ),
)
"""Damages of what a data set has once."""


class Workspace:
    """A finished workspace of the sample, and copies of it to be damaged."""

    def __init__(self, finished: Path) -> None:
        self.finished = finished
        self.shards = read_shards(finished / "sample")

    def try_damage(self, damage: Damage, stage: str, place: Path) -> Outcome | None:
        """Damage a copy and run the command; None where the stage cannot be damaged so.

        Args:
            damage: what is done.
            stage: to which stage.
            place: where the copy is to lie; nothing is there yet, and nothing stays.
        """
        if damage.before_labels and not damage.options and stage in UNREAD:
            return None
        shutil.copytree(self.finished, place, symlinks=True, copy_function=os.link)
        try:
            if damage.apply(place / "sample", stage) is False:
                return None
            if damage.before_labels and stage != "labels":
                shutil.rmtree(place / "sample" / "labels")
            status = call(place, sys.executable, "-m", "pipeline", "status")
            if status.returncode or "Traceback" in status.stderr:
                return Outcome(result="status dies", said=status.stderr)
            done = label(place, *damage.options)
            return Outcome(result=self._judge(done, place), said=done.stdout + done.stderr)
        finally:
            shutil.rmtree(place)

    def _judge(self, done: subprocess.CompletedProcess[str], place: Path) -> str:
        """What came of a command."""
        if "Traceback" in done.stdout + done.stderr:
            return "a trace"
        if done.returncode == 0:
            return "mended" if read_shards(place / "sample") == self.shards else "other bytes"
        lines = [line for line in done.stderr.splitlines() if str(place / "sample") in line]
        return "named" if len(lines) == 1 else f"exit code {done.returncode}, {len(lines)} lines name a file"


def read_shards(folder: Path) -> dict[str, bytes]:
    """Every shard of a data set by its path, and what `current` names."""
    files = {str(p.relative_to(folder)): p for p in sorted(folder.glob("[!_.]*/*/*.parquet"))}
    return {name: path.read_bytes() for name, path in files.items() if path.is_file()}


def call(workspace: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a workspace, in a process of its own."""
    environment = {**os.environ, "FIQA_WORKSPACE": str(workspace), "COLUMNS": "400"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def label(workspace: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Label the sample, without its page."""
    luigi = str(Path(sys.executable).with_name("luigi"))
    words = ("--module", "pipeline", "LabelAll", "--dataset", "sample", "--report-page", "false")
    return call(workspace, luigi, *words, *options)


def make_finished(folder: Path) -> Workspace:
    """Label the sample once."""
    done = label(folder)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Workspace(folder)


def plan(only: str, stages: list[str]) -> Iterator[tuple[Damage, str]]:
    """Every damage with every stage."""
    for damage in (*SHARDS, *PLACES, *ONCE):
        if only in damage.name:
            for stage in stages if damage not in ONCE else ["index"]:
                yield damage, stage


def main() -> None:
    """Try them all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="damages whose name has this in it")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages that are damaged, separated by commas")
    given = parser.parse_args()
    started, results = time.monotonic(), dict[str, Counter[str]]()
    with tempfile.TemporaryDirectory() as folder:
        workspace = make_finished(Path(folder) / "finished")
        for damage, stage in plan(given.only, given.stages.split(",")):
            outcome = workspace.try_damage(damage, stage, Path(folder) / "copy")
            if outcome is None:
                continue
            results.setdefault(damage.name, Counter())[outcome.result] += 1
            print(f"{time.monotonic() - started:6.0f} s  {damage.name:30} {stage:12} {outcome.result}", flush=True)
            if outcome.result not in ("mended", "named"):
                print(json.dumps(outcome.said, indent=1), file=sys.stderr, flush=True)
    print("\n| damage | tried | mended | named | faults |\n| --- | --- | --- | --- | --- |")
    for name, found in results.items():
        bad = ", ".join(f"{count} {result}" for result, count in found.items() if result not in ("mended", "named"))
        print(f"| {name} | {found.total()} | {found['mended']} | {found['named']} | {bad or 0} |")


if __name__ == "__main__":
    main()
