"""`pfstore evaluate`: what fusion methods are worth on a protocol of the field."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pfstore.cli.app import App, Command, Number, plural
from pfstore.cli.spans import Span

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.evaluation.evaluating import Progress
    from pfstore.evaluation.methods import Method
    from pfstore.evaluation.protocols.experiment import Experiment
    from pfstore.evaluation.results import Evaluation
    from pfstore.parts import Parts

_RATE = Number(0, 1, min_open=True, max_open=True)
_SHARE = Number(0, 1)


@click.command(cls=Command)
@click.option("--source", help="A split of a source of pfstore.toml.")
@click.option(
    "--hdf5",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Feature files of the reference: each subject's gallery against all probes.",
)
@click.option(
    "--protocol",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A protocol as data: a TOML file of kind bts, ijb-11, ijb-1n, dronesurf, hdf5 or split.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="A baseline, `baselines` for all of them, or a model's file; may be given several times [default: baselines].",
)
@click.option(
    "--strategy",
    type=click.Choice(["media", "set", "both"]),
    default="both",
    show_default=True,
    help="How references are fused: each medium first, or all at once.",
)
@click.option("--experts-selected", type=click.IntRange(min=1), help="Of a published checkpoint, which does not tell.")
@click.option("--normalisation", help="Of a published checkpoint: raw, unit or scale:FACTOR.")
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train", "all"]),
    help="Which subjects of a source [default: test].",
)
@click.option("--test", type=_SHARE, help="Share of the subjects in the test part [default: the model's, else 0.2].")
@click.option("--validation", type=_SHARE, help="Share in the validation part [default: the model's, else 0.1].")
@click.option("--parts-seed", type=int, help="Decides who is in which part [default: the model's, else 0].")
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    help="How often sets are drawn of each subject of a source [default: 3].",
)
@click.option("--media", type=Span(), help="Media in a set drawn of a source [default: 1-3].")
@click.option("--fmr", multiple=True, type=_RATE, metavar="RATE", help="FMR to tell FNMR at [default: 0.1 … 0.000001].")
@click.option(
    "--fpir", multiple=True, type=_RATE, metavar="RATE", help="FPIR to tell FNIR at [default: 0.003, 0.01, 0.1]."
)
@click.option("--rank", "ranks", multiple=True, type=click.IntRange(min=1), help="[default: 1, 5, 20]")
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Replicates for the 95 % intervals.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draws and the intervals."
)
@click.option(
    "--report",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write report.html, results.json, results.csv and figures there.",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every figure as a row.",
)
@click.pass_obj
def evaluate(
    app: App,
    /,
    models: tuple[str, ...],
    strategy: Literal["media", "set", "both"],
    experts_selected: int | None,
    normalisation: str | None,
    fmr: tuple[float, ...],
    fpir: tuple[float, ...],
    ranks: tuple[int, ...],
    bootstrap: int,
    seed: int,
    folder: Path | None,
    csv_file: Path | None,
    **where: Any,
) -> None:
    """Evaluate fusion methods side by side: FNMR, EER, ranks and FNIR with counts and 95 % intervals.

    \b
    Example:
      pfstore evaluate --source hr --model hr.safetensors --model baselines
      pfstore evaluate --hdf5 features/test --model average --model ada.pth.tar
      pfstore evaluate --protocol ijbc.toml --report ijbc-report
      pfstore evaluate --source hr --json | jq '.methods[].label'
    """
    if sum(where[name] is not None for name in ("source", "hdf5", "protocol")) != 1:
        raise click.UsageError("name what to evaluate on: one of --source NAME, --hdf5 FOLDER and --protocol FILE")
    from pfstore.evaluation.evaluating import evaluate
    from pfstore.evaluation.methods import STRATEGIES, Strategy, load_methods
    from pfstore.evaluation.scoring import Targets

    _check_outputs(folder, csv_file)
    default = Targets()
    targets = Targets(
        _falling(fmr) or default.fmr, sorted(set(fpir)) or default.fpir, sorted(set(ranks)) or default.ranks
    )
    chosen: Sequence[Strategy] = STRATEGIES if strategy == "both" else (strategy,)
    methods = load_methods(
        models or ("baselines",),
        chosen,
        experts_selected=experts_selected,
        normalisation=normalisation,
    )
    experiment = _experiment(app, methods, seed=seed, **where)
    with _progress(app.quiet) as observe:
        found = evaluate(experiment, methods, targets, bootstrap=bootstrap, seed=seed, observe=observe)
    for warning in () if app.quiet else found.warnings:
        click.echo(f"pfstore: {warning}", err=True)
    if folder is not None:
        from pfstore.evaluation.report import write_report

        write_report(found, folder)
    if csv_file is not None:
        _write_csv(found, csv_file)
    app.show(found.as_dict() if app.json else None, _shown(found, folder))


def _check_outputs(folder: Path | None, csv_file: Path | None) -> None:
    from pfstore.errors import InputError

    if folder is not None:
        from pfstore.evaluation import report

        report.check(folder)
    if csv_file is not None and not csv_file.absolute().parent.is_dir():
        raise InputError(f"{csv_file}: the folder {csv_file.parent} is not there")


def _falling(rates: Sequence[float]) -> list[float]:
    return sorted(set(rates), reverse=True)


def _experiment(
    app: App,
    methods: Sequence[Method],
    *,
    source: str | None,
    hdf5: Path | None,
    protocol: Path | None,
    part: Literal["test", "validation", "train", "all"] | None,
    draws: int | None,
    media: tuple[int, int] | None,
    seed: int,
    **shares: Any,
) -> Experiment:
    told = {"part": part, "draws": draws, "media": media, **shares}
    if source is None and (given := [name for name, value in told.items() if value is not None]):
        raise click.UsageError(
            f"--{given[0].replace('_', '-')} is for --source: other data say themselves what is drawn"
        )
    if hdf5 is not None:
        from pfstore.evaluation.protocols.hdf5 import hdf5_experiment

        return hdf5_experiment(hdf5)
    if protocol is not None:
        from pfstore.evaluation.protocols.opening import load_protocol

        return load_protocol(protocol)
    from pfstore.evaluation.protocols.split import split_experiment

    assert source is not None
    parts = None if part == "all" else _parts(methods, **shares)
    with app.source(source) as opened:
        return split_experiment(
            opened,
            parts=parts,
            part="test" if part is None or part == "all" else part,
            draws=draws or 3,
            media=media or (1, 3),
            seed=seed,
            name=source,
        )


def _parts(methods: Sequence[Method], test: float | None, validation: float | None, parts_seed: int | None) -> Parts:
    """Return the parts that are told, else those of the first model that was trained on some."""
    from pfstore.fusion import NetworkModel
    from pfstore.parts import Parts

    default = Parts().as_dict()
    cards = (one.fuser.card or {} for one in methods if isinstance(one.fuser, NetworkModel))
    told = (card.get("parts") for card in cards)
    # A card may be anybody's, so "parts" may be anything.
    known = next((one for one in told if isinstance(one, dict) and one.keys() == default.keys()), default)
    shares = {"test": known["test"] if test is None else test,
              "validation": known["validation"] if validation is None else validation}  # fmt: skip
    # Rounded, as a sum need not be exact to the last bit, and the parts are compared with those of a model's card.
    train = known["train"] if test is None and validation is None else round(1 - sum(shares.values()), 12)
    return Parts(train, **shares, seed=known["seed"] if parts_seed is None else parts_seed)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Give an observer: a line on a terminal that is gone in the end."""
    from pfstore.cli.output import looking

    with looking(quiet or not sys.stderr.isatty()) as tell:
        yield lambda now: tell(
            f"{now.features:,} features fused" if now.method is None else f"comparing the templates of {now.method}"
        )


def _write_csv(found: Evaluation, path: Path) -> None:
    from pfstore.errors import InputError
    from pfstore.evaluation.tables import CSV, csv_rows

    try:
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, CSV, lineterminator="\n")
            writer.writeheader()
            writer.writerows(csv_rows(found))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _shown(found: Evaluation, folder: Path | None) -> RenderableType:
    from pfstore.cli.output import facts, stacked, table
    from pfstore.evaluation import tables

    taken = found.acquisition
    told = {
        "experiment": found.experiment,
        "features": f"{found.extractor or 'extractor not told'}, {found.dimension} values",
        "references": f"{taken.references:,}, {plural(taken.reference_failures, 'failure')} to enrol",
        "probes": f"{taken.probes:,}, {plural(taken.probe_failures, 'failure')} to acquire (FTA {taken.fta:.4g})",
        **({"report": str(folder / "report.html")} if folder else {}),
    }
    parts = [facts(told), "", table(tables.verification_rows(found), tables.VERIFICATION)]
    if rows := tables.identification_rows(found):
        parts += ["", table(rows, tables.IDENTIFICATION)]
    return stacked(*parts)
