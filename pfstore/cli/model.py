"""`pfstore model`: the registry of fusion models."""

from __future__ import annotations

from pathlib import Path

import click

from pfstore.cli.app import App, Group


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
    """Import a ProxyFusion checkpoint: a published .pth.tar, or safetensors. No code in it is ever run.

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
    from pfstore.cli.output import facts
    from pfstore.gallery.models import Model

    assert isinstance(registered, Model)
    document = registered.as_dict()
    shown = {"name": document["name"], **document["details"], **document}
    app.show(document, facts({key: value for key, value in shown.items() if key != "details"}))


def _stem(file: Path) -> str:
    return file.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".safetensors")
