"""The page that documents every table, made from their definitions; `python -m data_manifests.tables.page` writes it.

The page also holds the measured agreement of the labels with known damage, which a benchmark writes between marks of
its own; that section is kept.
"""

from __future__ import annotations

from pathlib import Path

from data_manifests.storage.atomic import write_atomically
from data_manifests.tables.alignment import ALIGNMENT
from data_manifests.tables.evaluation import EVALUATION_TABLES
from data_manifests.tables.scores import MODEL_TABLES
from data_manifests.tables.stages import STATUS_TEXT, TABLES, Column, Table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "labels.md"
BEGIN = "<!-- tables: made by python -m data_manifests.tables.page -->"
END = "<!-- end of tables -->"


def render_tables() -> str:
    """The Markdown of all tables and statuses."""
    tables = (*TABLES.values(), *MODEL_TABLES.values(), *EVALUATION_TABLES.values(), ALIGNMENT)
    sections = [render_table(table) for table in tables]
    rows = "\n".join(f"| `{status.value}` | {text} |" for status, text in STATUS_TEXT.items())
    statuses = f"## Status\n\n| value | meaning |\n| --- | --- |\n{rows}"
    return "\n\n".join([*sections, statuses])


def render_table(table: Table) -> str:
    """The Markdown of one table."""
    head = (
        f"## `{table.name}`\n\n{table.text}\n\n| column | type | what it holds | source |\n| --- | --- | --- | --- |\n"
    )
    return head + "\n".join(_row(column) for column in table.columns)


def _row(column: Column) -> str:
    """One column as a row."""
    text = column.text.replace("|", "\\|")
    return f"| `{column.name}` | {column.kind} | {text} | {column.source} |"


def renew(page: str) -> str:
    """A page with its generated section made anew.

    Raises:
        ValueError: if the page lacks the marks.
    """
    if BEGIN not in page or END not in page:
        raise ValueError(f"{PAGE} lacks the marks {BEGIN} and {END}: put them back where the tables belong")
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n\n{render_tables()}\n\n{END}{after}"


if __name__ == "__main__":
    content = renew(PAGE.read_text())
    write_atomically(PAGE, lambda file: file.write(content.encode()))
