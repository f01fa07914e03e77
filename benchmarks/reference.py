"""The page of all settings, tasks, commands, manifests and networks, and the comments of luigi.cfg, made from the code.

    python -m benchmarks.reference

Nothing of it is written down twice: what runs again when a setting changes is computed too (benchmarks.stale_stages).
"""

from __future__ import annotations

import argparse
import configparser
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchmarks.stale_stages import stale_stages
from data_manifests.manifest import Manifest, load_manifest, shipped_names
from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.values import attributes
from data_manifests.tables.alignment import ALIGNMENT
from data_manifests.tables.evaluation import EVALUATION_TABLES
from data_manifests.tables.scores import MODEL_TABLES
from data_manifests.tables.stages import TABLES
from data_manifests.weights.entry import ModelEntry
from data_manifests.weights.registry import SHIPPED, read_entries
from pipeline.__main__ import app
from pipeline.commands.settings import PANEL
from pipeline.commands.tasks import document, list_options, show_default, user_tasks
from pipeline.config.settings import list_sections
from pipeline.tasks.publish import LabelAll

if TYPE_CHECKING:
    from collections.abc import Iterable

    import luigi
    from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference.md"
CONFIG = ROOT / "luigi.cfg"
TRAINING = ("train_quality", "train_recognition", "train_on_top", "score", "export", "factor_net.__main__")

VARIABLES = {
    "FIQA_WORKSPACE": "folder of all outputs; default: `workspace` in the current folder",
    "FIQA_DATA": "folder at which the shipped manifests' data sets lie; default: `data` in the current folder",
    "FIQA_MODELS": "folders with weight files, and with a `models.toml` that adds networks; several parted by `:`",
    "FIQA_CACHE": "folder into which weight files are fetched; default: the user's cache folder",
    "FIQA_TRACE": "set to anything, errors come with their trace",
    "FIQA_WORKER": "set for Dask workers, so that they import the factory without Luigi",
    "LUIGI_CONFIG_PATH": "a further file of settings, read after `luigi.cfg`",
}
INTERNAL = ("FIQA_PROCESSES", "FIQA_RUN")
"""Variables that processes of the factory set for each other."""

EXIT_CODES = (
    ("0", "done, or nothing to do"),
    ("1", "the command cannot be carried out as given; one message says why"),
    ("2", "words that the command does not know (`training`, `python -m pipeline`)"),
    ("75", "`training.train_quality` or `training.train_recognition` was told to stop, and has saved"),
    ("130", "`training.score` was stopped by Ctrl-C"),
)


_DEFAULT = re.compile(r" \(default: (%\(default\)s|yes|no|\w+)\)$")
_EXAMPLE = re.compile(r"(Example: |loader: )(python .*)$", re.MULTILINE)
_TARGET = re.compile(r"^([a-z-]+):.*?## (.*)$", re.MULTILINE)


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_atomically(PAGE, lambda file: file.write(render().encode()))
    settings = render_settings(CONFIG.read_text())
    write_atomically(CONFIG, lambda file: file.write(settings.encode()))


def render_settings(text: str) -> str:
    """luigi.cfg with the factory's own sections made anew from the settings; its head and Luigi's sections stay."""
    head, _, rest = text.partition("[dataset]\n")
    return head + "\n".join(map(_config_section, list_sections())) + "\n[core]\n" + rest.partition("\n[core]\n")[2]


def _config_section(section: type[luigi.Config]) -> str:
    """One section: every setting at its default, under what it is."""
    lines = [f"[{section.__name__}]", *_comment(inspect.getdoc(section) or "")]
    for name, parameter in section.get_params():
        lines += [*_comment(parameter.description), f"{name} = {show_default(parameter)}".rstrip()]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    """Lines of a comment; it begins with a capital letter and ends with a full stop."""
    return textwrap.wrap(f"{text[0].upper()}{text[1:].rstrip('.')}.", 120, initial_indent="# ", subsequent_indent="# ")


def render() -> str:
    """The page."""
    parts = [
        "# Reference",
        "<!-- made by python -m benchmarks.reference: change the code, not this page -->",
        "Settings, tasks, commands, manifests and networks, as the code has them. The columns of every table are in\n"
        "[labels.md](labels.md), the layout of the workspace in [architecture.md](architecture.md).",
        "## Settings", _settings(),
        "## Environment variables", _grid(("variable", "what it is"), ((f"`{n}`", t) for n, t in VARIABLES.items())),
        "## Tasks", _tasks(),
        "## Commands", _commands(),
        "## make", _make(),
        "## Exit codes", _exit_codes(),
        "## Data sets", _data_sets(),
        "## Networks", _networks(),
        "## Tables", _tables(),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _settings() -> str:
    """Every section of luigi.cfg that is the factory's own, and what runs again."""
    text = (
        "They stand in `luigi.cfg`, in a file of the same form that `LUIGI_CONFIG_PATH` names, or in a command as\n"
        "`--section-name value`: `luigi --module pipeline LabelAll --labels-blur-hazy 0.3`, and `python -m pipeline\n"
        "plan LabelAll --labels-blur-hazy 0.3` shows what that would run. The last column says which stages have\n"
        "another output when the setting has another value; all others are found as they are."
    )
    head = ("setting", "default", "what it is", "runs again")
    found = []
    for section in list_sections():
        rows = [
            (
                f"`{name}`",
                _as_code(show_default(parameter)),
                parameter.description,
                _show_stages(stale_stages(section, name)),
            )
            for name, parameter in section.get_params()
        ]
        found.append(f"### [{section.__name__}]\n\n{inspect.getdoc(section)}\n\n{_grid(head, rows)}")
    return "\n\n".join([text, *found])


def _show_stages(stages: list[str] | None) -> str:
    """Stages that run again."""
    if stages is None:
        return "another data set has a folder of its own"
    return ", ".join(f"`{stage}`" for stage in stages) or "nothing"


def _as_code(text: str) -> str:
    """A text as code; an empty one stays empty."""
    return f"`{text}`" if text else ""


def _tasks() -> str:
    """Every task that a user calls."""
    text = (
        "`luigi --module pipeline TASK`, with `--workers N` for N processes. Every task also takes the settings\n"
        "above, and Luigi's own options (`luigi --help-all`)."
    )
    return "\n\n".join([text, *(_task(task) for task in user_tasks())])


def _task(task: type[luigi.Task]) -> str:
    """One task."""
    options = list_options(task)
    if task is not LabelAll and options == list_options(LabelAll):
        return f"### {task.__name__}\n\n{document(task)} Its options are those of [LabelAll](#labelall)."
    rows = ((_as_code(option), _as_code(default), text) for option, default, text in options)
    return f"### {task.__name__}\n\n{document(task)}\n\n{_grid(('option', 'default', 'what it is'), rows)}"


def _commands() -> str:
    """Every command of `python -m pipeline` and `python -m training.…`."""
    found = []
    group = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        nested = getattr(command, "commands", {})
        found.append(_command(f"python -m pipeline {name}", command))
        found += [_command(f"python -m pipeline {name} {inner}", part) for inner, part in sorted(nested.items())]
    for module in TRAINING:
        parser = importlib.import_module(f"training.{module}").parser()
        found.append(_parser(f"python -m training.{module.removesuffix('.__main__')}", parser))
    return "\n\n".join(found)


def _command(title: str, command: Any) -> str:
    """One command of typer."""
    rows = []
    own = [option for option in command.params if getattr(option, "rich_help_panel", None) != PANEL]
    for option in own:
        if option.name != "help":
            shown = ", ".join(option.opts) if option.param_type_name == "option" else option.name
            default = "" if option.default in (None, "", False) or option.required else f"`{option.default}`"
            rows.append((f"`{shown}`", default, getattr(option, "help", None) or ""))
    text = _EXAMPLE.sub(r"\1`\2`", inspect.cleandoc(command.help or ""))
    if len(own) < len(command.params):
        text += "\n\nIt also takes every [setting](#settings)."
    return _section(title, text, rows)


def _parser(title: str, parser: argparse.ArgumentParser) -> str:
    """One command of argparse."""
    rows = []
    for action in parser._actions:
        if action.dest != "help":
            value = getattr(action.default, "value", action.default)
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            default = "" if shown in (None, "", [], False) else f"`{str(shown).lower() if shown is True else shown}`"
            rows.append((f"`{', '.join(action.option_strings)}`", default, _DEFAULT.sub("", action.help or "")))
    return _section(title, (parser.description or "").strip(), rows)


def _section(title: str, text: str, rows: list[tuple[str, str, str]]) -> str:
    """A command with its options."""
    grid = f"\n\n{_grid(('option', 'default', 'what it is'), rows)}" if rows else ""
    return f"### `{title}`\n\n{text}{grid}"


def _make() -> str:
    """The targets of the Makefile."""
    rows = ((f"`make {name}`", text) for name, text in _TARGET.findall((ROOT / "Makefile").read_text()))
    return _grid(("target", "what it does"), rows)


def _exit_codes() -> str:
    """What a command ends with."""
    config = configparser.ConfigParser()
    config.read(CONFIG)
    luigi_codes = [(f"`{value}`", f"Luigi: {name.replace('_', ' ')}") for name, value in config.items("retcode")]
    return _grid(("code", "meaning"), [*((f"`{code}`", text) for code, text in EXIT_CODES), *luigi_codes])


def _data_sets() -> str:
    """The fields of a manifest, and the manifests that are shipped."""
    text = (
        "A data set is a TOML file. `--dataset` takes the name of a shipped one, or a path. A relative `root` starts\n"
        "at the file's folder, in a shipped manifest at `FIQA_DATA`; environment variables are replaced."
    )
    rows = [
        (f"`{name}`", manifest.format.value, _count(manifest.images), _count(manifest.identities), manifest.licence)
        for name in shipped_names()
        for manifest in [load_manifest(name)]
    ]
    shipped = _grid(("name", "format", "images", "people", "licence"), rows)
    return "\n\n".join([text, _fields(Manifest, leave_out=("file",)), "### Shipped manifests", shipped])


def _count(number: int | None) -> str:
    """A number of images."""
    return f"{number:,}" if number else ""


def _networks() -> str:
    """The fields of models.toml, and the networks in it."""
    text = (
        "Networks stand in [data_manifests/weights/models.toml](../data_manifests/weights/models.toml). A\n"
        "`models.toml` in a folder of `FIQA_MODELS` adds others in the same form: one table a network."
    )
    entries = read_entries(SHIPPED)
    sizes = {name: sum(file.bytes or 0 for file in entry.files) / 1e6 for name, entry in entries.items()}
    rows = [
        (f"`{name}`", entry.kind.value, f"{size:.1f} MB" if (size := sizes[name]) else "bring it", entry.licence)
        for name, entry in entries.items()
    ]
    shipped = _grid(("name", "for", "size", "licence"), rows)
    return "\n\n".join([text, _fields(ModelEntry, leave_out=("name",)), "### Shipped networks", shipped])


def _fields(model: type[BaseModel], leave_out: tuple[str, ...]) -> str:
    """The fields of a parsed file, as its class describes them."""
    texts = attributes(model)
    rows = []
    for name, field in model.model_fields.items():
        if name not in leave_out:
            default = "needed" if field.is_required() else f"`{field.default}`" if field.default else ""
            rows.append((f"`{name}`", default, texts[name]))
    return _grid(("field", "default", "what it is"), rows)


def _tables() -> str:
    """An index of the tables."""
    tables = (*TABLES.values(), *MODEL_TABLES.values(), *EVALUATION_TABLES.values(), ALIGNMENT)
    rows = ((f"[`{table.name}`](labels.md#{table.name})", table.text) for table in tables)
    return _grid(("table", "what it holds"), rows)


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


if __name__ == "__main__":
    main()
