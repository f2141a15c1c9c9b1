"""`pfstore model`: the registry of fusion models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pfstore.cli.app import App, Group

LONG_LIST, LONG_MAPPING = 4, 8
"""Entries of a list and of a mapping in a model card, above which not all are shown."""


@click.group(cls=Group)
def model() -> None:
    """Register fusion models and show them."""


@model.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The name that galleries use [default: the file's].")
@click.option(
    "--experts-selected", type=click.IntRange(min=1), help="Blocks of a template [default: the file's, or 4]."
)
@click.option("--normalisation", help='What is done to features first: "raw", "unit" or "scale:<factor>".')
@click.pass_obj
def import_(app: App, file: Path, name: str | None, experts_selected: int | None, normalisation: str | None) -> None:
    """Import a checkpoint: a published .pth.tar of ProxyFusion, or safetensors. No code in it is ever run.

    Example: pfstore model import adaface.pth.tar --name adaface-briar --experts-selected 4
    """
    from pfstore.fusion import load_model
    from pfstore.gallery import models

    fuser = load_model(file, experts_selected=experts_selected, normalisation=normalisation)
    with app.connect() as connection:
        registered = models.register(connection, fuser, name or _stem(file))
    _show(app, registered)


@model.command("list")
@click.pass_obj
def list_(app: App) -> None:
    """List the registered models.

    Example: pfstore model list
    """
    from pfstore.cli.output import table
    from pfstore.gallery import models

    with app.connect() as connection:
        rows = [one.as_dict() for one in models.listed(connection)]
    short = [row | {"digest": row["digest"][:12]} for row in rows]
    app.show(rows, table(short, ("name", "kind", "dimension", "blocks", "normalisation", "digest", "bytes")))


@model.command()
@click.argument("name")
@click.pass_obj
def show(app: App, name: str) -> None:
    """Show one model, by its name or the start of its digest.

    Example: pfstore model show adaface-briar
    """
    from pfstore.gallery import models

    with app.connect() as connection:
        _show(app, models.find(connection, name))


def _show(app: App, registered: object) -> None:
    from pfstore.cli.output import facts, stacked
    from pfstore.gallery.models import Model

    assert isinstance(registered, Model)
    document = registered.as_dict()
    shown = {"name": document["name"], **document["details"], **document}
    about = facts({key: value for key, value in shown.items() if key not in ("details", "card")})
    card = document["details"].get("card")
    app.show(document, stacked(about, "", "Model card", facts(_lines(card))) if card else about)


def _lines(card: Mapping[str, Any]) -> dict[str, str]:
    """Return a line for each entry of a model card, those of one value first."""
    ordered = sorted(card, key=lambda key: (isinstance(card[key], Mapping | list), key))
    return {_label(key): _compact(card[key]) for key in ordered}


def _label(key: str) -> str:
    from pfstore.text import visible

    return visible(key).replace("_", " ")


def _compact(value: Any, inside: bool = False) -> str:
    """Return a value of a model card on one line: of a long list its ends, of a large mapping its first entries."""
    from pfstore.cli.output import cell

    if isinstance(value, Mapping):
        entries = [f"{_label(key)} {_compact(one, inside=True)}" for key, one in sorted(value.items())]
        more = [f"and {len(entries) - LONG_MAPPING} more"] if len(entries) > LONG_MAPPING else []
        text = ", ".join(entries[:LONG_MAPPING] + more) or "none"
        return f"({text})" if inside else text
    if isinstance(value, list):
        few = value if len(value) <= LONG_LIST else [value[0], value[-1]]
        joined = (", " if few is value else " … ").join(_compact(one, inside=True) for one in few)
        text = joined or "none" if few is value else f"{len(value):,}: {joined}"
        return f"[{text}]" if inside else text
    return f"{value:.6g}" if isinstance(value, float) else cell(value)


def _stem(file: Path) -> str:
    return file.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".safetensors")
