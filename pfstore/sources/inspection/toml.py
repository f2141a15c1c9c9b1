"""TOML for pasting into pfstore.toml, of any text that a database may hold."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from pfstore.text import visible

_WIDTH = 100
_VARIABLE = re.compile(r"\$\{(?=[A-Za-z_]\w*\})", re.ASCII)


def head(name: str, store: Mapping[str, str]) -> list[str]:
    """Return the first lines of a source. store: the url, in which ${VARIABLE} stays one."""
    return [f"[sources.{key(name)}]", *(f"{one} = {_basic(text)}" for one, text in store.items())]


def key(name: str) -> str:
    """Return a key, in quotation marks where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _basic(name)


def value(found: Any) -> str:
    """Return a value of TOML's types; text in which pfstore.toml would take nothing for a variable."""
    if isinstance(found, dict):
        return "{ " + ", ".join(f"{key(name)} = {value(one)}" for name, one in found.items()) + " }"
    if isinstance(found, list):
        return "[" + ", ".join(map(value, found)) + "]"
    if not isinstance(found, str):
        return json.dumps(found)
    text = _VARIABLE.sub("$${", found)
    return f'"""\n{text}"""' if _reads_as_it_is(text) else _basic(text)


def comment(text: str, hanging: str = "  ") -> str:
    """Return lines of a comment, indented as the text is. hanging: before every line but the first."""
    indent = " " * (len(text) - len(text.lstrip(" ")))
    return textwrap.fill(
        visible(text.strip(" ")), _WIDTH, initial_indent=f"# {indent}", subsequent_indent=f"# {indent}{hanging}"
    )


def _reads_as_it_is(text: str) -> bool:
    lines = text.split("\n")
    return len(lines) > 1 and '"""' not in text and "\\" not in text and all(map(str.isprintable, lines))


def _basic(text: str) -> str:
    # A JSON string is a TOML string too, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
