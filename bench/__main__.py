"""`python -m bench [--big] [--out FILE]`: run every benchmark and print how the contestants compare."""

from __future__ import annotations

from pathlib import Path

import click

from bench import (
    backfilling,
    decoding,
    deduplicating,
    fusing,
    gpu,
    harness,
    reading,
    refreshing,
    scaling,
    scoring,
    searching,
    training,
    writing,
)


@click.command()
@click.option("--big", is_flag=True, help="The large sizes.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the results as JSON too.")
def main(big: bool, out: Path | None) -> None:
    """Run every benchmark, small by default."""
    benchmarks = (
        reading,
        decoding,
        fusing,
        gpu,
        training,
        scoring,
        writing,
        backfilling,
        refreshing,
        scaling,
        searching,
        deduplicating,
    )
    results = [result for one in benchmarks for result in one.run(big=big)]
    harness.show(results)
    if out:
        harness.keep(results, out)


main()
