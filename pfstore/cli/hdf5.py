"""`pfstore hdf5`: the feature files of ProxyFusion's reference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from pfstore.cli.app import App, Group


@click.group(cls=Group)
def hdf5() -> None:
    """Make and list feature files in HDF5."""


@hdf5.command()
@click.argument("source")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--single-file", is_flag=True, help="One file for all subjects instead of one each.")
@click.pass_obj
def pack(app: App, source: str, folder: Path, single_file: bool) -> None:
    """Freeze a source's features into HDF5 files, for training or to take along.

    Example: pfstore hdf5 pack hr features/train/retinaface/adaface
    """
    from pfstore.cli.output import facts
    from pfstore.sources.pack import pack as run

    with app.source(source) as opened:
        packed = asdict(run(opened, folder, single_file=single_file))
    app.show(packed, facts(packed))


@hdf5.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_obj
def ls(app: App, path: Path) -> None:
    """List the subjects in HDF5 feature files.

    Example: pfstore hdf5 ls features/train/retinaface/adaface
    """
    from pfstore.cli.output import table
    from pfstore.sources.pack import listing

    rows = [asdict(one) for one in listing(path)]
    app.show(rows, table(rows, tuple(rows[0]) if rows else ()))
