"""What the commands of all trainings share: options, the lock of the run's folder, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from data_manifests.image_folder import ImageFolderError
from data_manifests.recordio.record_file import RecordError
from data_manifests.storage.atomic import DiskFullError, LockedError, RunLock
from data_manifests.storage.values import Positive, kind_of, reader_of
from labelers.runtime.device import Device
from training.trainer.checkpoint import CheckpointError
from training.trainer.ranks import DeviceError
from training.trainer.run_folder import RunFolderError
from training.trainer.stopping import EXIT_CODE
from training.trainer.trainer import LossError, Outcome
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo

    from training.trainer.ranks import Ranks
    from training.trainer.run_folder import RunFolder
    from training.trainer.trainer import Trainer

log = logging.getLogger(__name__)

MISTAKES = (
    CheckpointError, DeviceError, DiskFullError, FileNotFoundError, ImageFolderError, LockedError, LossError,
    NotADirectoryError, PermissionError, RecordError, RunFolderError, WeightsError, ValueError,
)  # fmt: skip
"""What a user can mend; its message says how."""


def run_training(work: Callable[[], Outcome], mistakes: tuple[type[Exception], ...] = ()) -> int:
    """Train; 0 when done, 75 when told to stop and saved, 1 with one message on stderr when it cannot be done.

    Args:
        work: reads the command line and trains.
        mistakes: errors beside `MISTAKES` that a user can mend.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    caught: tuple[type[Exception], ...] = (*MISTAKES, *mistakes)
    try:
        outcome = work()
    except caught as error:
        if os.environ.get("FIQA_TRACE"):
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1
    return EXIT_CODE if outcome is Outcome.STOPPED else 0


class Training(Protocol):
    """A training that lies in a run folder, new or taken up again."""

    @property
    def trainer(self) -> Trainer[Any]:
        """Its loop."""

    def run(self, limit: int | None = None) -> Outcome:
        """Train to the end, until told to stop, or for so many steps in all."""


def train_in(  # noqa: PLR0913 - a run, who computes it, and what is its own
    folder: RunFolder,
    ranks: Ranks,
    *,
    begin: Callable[[], str],
    left_out: Mapping[str, int],
    build: Callable[[], Training],
    limit: int | None,
) -> Outcome:
    """Train in a run's folder, which the process that writes holds meanwhile.

    Args:
        folder: of the run.
        ranks: the processes.
        begin: writes down what the run is made from, and says what is learned from.
        left_out: cause -> images that are not learned from.
        build: makes the training, unless it is finished.
        limit: steps in all, after which it stops.
    """
    with _lock_run(folder.root, ranks):
        if ranks.is_main:
            told = begin()
            causes = ", ".join(f"{count:,} {cause}" for cause, count in left_out.items() if count)
            log.info("run %s: %s%s", folder.fingerprint, told, causes and f", left out {causes}")
        if folder.finished:
            log.info("%s: this run is finished already", folder.root)
            return Outcome.FINISHED
        ranks.wait()
        training = build()
        outcome = training.run(limit)
        if ranks.is_main:
            log.info("step %d: %s; %s", training.trainer.step, outcome.value, folder.root)
        return outcome


@contextlib.contextmanager
def _lock_run(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the folder of a run, in the process that writes."""
    if not ranks.is_main:
        yield
        return
    lock = RunLock(folder)
    lock.acquire(" ".join(sys.argv))
    try:
        yield
    finally:
        lock.release()


def add_run_options(result: argparse.ArgumentParser, recipe: str) -> None:
    """Add the options that say where a run lies, where it computes, and when it stops.

    Args:
        result: gets them.
        recipe: a file of settings, as an example.
    """
    add = result.add_argument
    add("--output", type=Path, required=True, help="folder of the run; if it holds this run, it goes on")
    add("--config", type=Path, help=f"file of settings, such as {recipe}; options win over it")
    add("--limit-steps", type=reader_of(Positive), help="stop, and save, after so many steps in all")
    add("--device", type=reader_of(Device), default=Device.CPU, help="where: cpu or cuda (default: cpu)")


def add_setting(result: argparse.ArgumentParser, name: str, setting: FieldInfo, **more: Any) -> None:
    """Add the option of a setting.

    Args:
        result: gets it.
        name: of the setting.
        setting: its type, default and text.
        more: other arguments of argparse's `add_argument`.
    """
    kind, default, option = kind_of(setting), setting.default, f"--{name.replace('_', '-')}"
    told = "" if default is None or isinstance(default, tuple | dict) else " (default: %(default)s)"
    add = partial(result.add_argument, help=f"{setting.description}{told}", default=default, **more)
    if kind is bool:
        add(option, action=argparse.BooleanOptionalAction)
    else:
        add(option, type=reader_of(kind))


def parse(
    build: Callable[[], argparse.ArgumentParser],
    read: Callable[[Path], Mapping[str, Any]],
    arguments: Sequence[str] | None,
) -> argparse.Namespace:
    """Read a command line; what it leaves out is as the file of settings says, if it names one.

    Args:
        build: makes the parser.
        read: reads a file of settings.
        arguments: of the command; None: of this process.

    Raises:
        TomlFileError: if the file is wrong.
    """
    given = _in_one_line(build()).parse_args(arguments)
    if given.config is None:
        return given
    with_file = _in_one_line(build())
    with_file.set_defaults(**read(given.config))
    return with_file.parse_args(arguments)


def _in_one_line(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """A parser that says what is wrong without forty lines of usage before it."""

    def error(message: str) -> NoReturn:
        parser.exit(2, f"error: {message}; `{parser.prog} --help` lists the options\n")

    parser.error = error  # type: ignore[method-assign]  # argparse has no other way
    return parser
