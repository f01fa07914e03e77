"""A page that needs nothing else: no network, no other file, and no script but its own."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 10_000_000
"""Bytes of a page at most."""

_HERE = "pipeline.pages"
_SCRIPTS = ("copy.js", "faces.js", "filter.js")
"""Scripts of every page."""


def render_document(package: str, content: Mapping[str, Any]) -> str:
    """Fill a package's `page.html.j2`, which extends `pages/document.html.j2`, and put all scripts at the end.

    All text is escaped; the page's policy lets no other script run, and nothing be fetched.

    Args:
        package: importable name; holds `page.html.j2`, `page.css` and, where it needs a script of its own, `page.js`.
        content: what the template needs; an unknown name in the template is an error.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PrefixLoader({"pages": PackageLoader(_HERE, "")})]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    scripts = [*(files(_HERE).joinpath(name) for name in _SCRIPTS), files(package).joinpath("page.js")]
    script = "\n".join(file.read_text("utf-8") for file in scripts if file.is_file())
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render({**content, "script": script, "digest": digest}).lstrip()
