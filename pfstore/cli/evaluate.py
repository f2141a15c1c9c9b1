"""`pfstore evaluate`: what fusion methods are worth on a protocol of the field."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pfstore.cli.app import RATE, App, Command, Number
from pfstore.cli.spans import Span

if TYPE_CHECKING:
    from pfstore.evaluation.evaluating import Progress
    from pfstore.evaluation.methods import Method
    from pfstore.evaluation.protocols.experiment import Experiment
    from pfstore.evaluation.results import Evaluation
    from pfstore.evaluation.scoring import Targets
    from pfstore.parts import Parts

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
@click.option("--compact", is_flag=True, help="Beside each model of several blocks, its compact form: their sum.")
@click.option(
    "--strategy",
    type=click.Choice(["media", "set", "both"]),
    default="both",
    show_default=True,
    help="How references are fused: each medium first, or all at once.",
)
@click.option("--experts-selected", type=click.IntRange(min=1), help="Of a published checkpoint, which does not tell.")
@click.option("--normalisation", help="Of a published checkpoint: raw, unit or scale:FACTOR.")
@click.option("--extractor", help="What made the features of --hdf5 [default: told by the folders].")
@click.option(
    "--ignore-extractor", is_flag=True, help="Evaluate a model also where its card names another extractor, and warn."
)
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train", "all"]),
    help="Which subjects to evaluate [default: test of a source, all of feature files].",
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
@click.option("--fmr", multiple=True, type=RATE, metavar="RATE", help="FMR to tell FNMR at [default: 0.1 … 0.000001].")
@click.option(
    "--fpir", multiple=True, type=RATE, metavar="RATE", help="FPIR to tell FNIR at [default: 0.003, 0.01, 0.1]."
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
    compact: bool,
    strategy: Literal["media", "set", "both"],
    experts_selected: int | None,
    normalisation: str | None,
    ignore_extractor: bool,
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
    _check_place(where)
    from pfstore.cli.evaluation_tables import shown
    from pfstore.evaluation.evaluating import evaluate
    from pfstore.evaluation.methods import STRATEGIES, Strategy, fitting, load_methods

    _check_outputs(folder, csv_file)
    chosen: Sequence[Strategy] = STRATEGIES if strategy == "both" else (strategy,)
    loaded = load_methods(
        models or ("baselines",), chosen, compact=compact, experts_selected=experts_selected,
        normalisation=normalisation,
    )  # fmt: skip
    targets = _targets(fmr, fpir, ranks)
    experiment = _experiment(app, loaded, seed=seed, **where)
    with _progress(app.quiet) as observe:
        found = evaluate(
            experiment, fitting(loaded, experiment), targets, bootstrap=bootstrap, seed=seed,
            ignore_extractor=ignore_extractor, observe=observe,
        )  # fmt: skip
    for warning in () if app.quiet else found.warnings:
        click.echo(f"pfstore: {warning}", err=True)
    _write(found, folder, csv_file)
    written = {} if folder is None else {"report": str(folder / "report.html")}
    app.show(found.as_dict() if app.json else None, shown(found, written))


_SPLIT = ("--source", "--hdf5")
_ONLY_FOR = {
    "part": _SPLIT, "test": _SPLIT, "validation": _SPLIT, "parts_seed": _SPLIT, "draws": ("--source",),
    "media": ("--source",), "extractor": ("--hdf5",),
}  # fmt: skip


def _check_place(where: Mapping[str, Any]) -> None:
    """Refuse anything but one place to take samples from, and options that would do nothing there."""
    places = [f"--{name}" for name in ("source", "hdf5", "protocol") if where[name] is not None]
    if len(places) != 1:
        raise click.UsageError("name what to evaluate on: one of --source NAME, --hdf5 FOLDER and --protocol FILE")
    for name, fitting in _ONLY_FOR.items():
        if places[0] not in fitting and where[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is for {' and '.join(fitting)}; with {places[0]} it would do nothing")


def _check_outputs(folder: Path | None, csv_file: Path | None) -> None:
    from pfstore.errors import InputError
    from pfstore.files import check_csv

    if folder is not None:
        from pfstore.evaluation import report

        report.check(folder)
        # What is missing of the path is made.
        above = next(one for one in folder.absolute().parents if one.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            raise InputError(f"{folder}: {above} is no folder that can be written to")
    if csv_file is not None:
        check_csv(csv_file, "figures")


def _targets(fmr: Sequence[float], fpir: Sequence[float], ranks: Sequence[int]) -> Targets:
    from pfstore.evaluation.scoring import Targets

    default = Targets()
    falling = sorted(set(fmr), reverse=True)
    return Targets(falling or default.fmr, sorted(set(fpir)) or default.fpir, sorted(set(ranks)) or default.ranks)


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
    extractor: str | None,
    **shares: Any,
) -> Experiment:
    if protocol is not None:
        from pfstore.evaluation.protocols.opening import load_protocol

        return load_protocol(protocol)
    # Feature files are often parted already, by folders; who names shares wants them parted.
    chosen = part or ("test" if source or any(one is not None for one in shares.values()) else "all")
    split: dict[str, Any] = {} if chosen == "all" else {"parts": _parts(methods, **shares), "part": chosen}
    if hdf5 is not None:
        from pfstore.evaluation.protocols.hdf5 import hdf5_experiment

        return hdf5_experiment(hdf5, extractor=extractor or "", **split)
    from pfstore.evaluation.protocols.split import split_experiment

    assert source is not None
    with app.source(source) as opened:
        return split_experiment(opened, draws=draws or 3, media=media or (1, 3), seed=seed, name=source, **split)


def _parts(methods: Sequence[Method], test: float | None, validation: float | None, parts_seed: int | None) -> Parts:
    """Return the parts that are told, else those of the first model that was trained on some."""
    from pfstore.errors import ConfigError
    from pfstore.evaluation.methods import card_of
    from pfstore.parts import Parts

    default = Parts().as_dict()
    cards = (card_of(one.fuser) or {} for one in methods)
    told = (card.get("parts") for card in cards)
    # A card may be anybody's, so "parts" may be anything.
    known = next((one for one in told if isinstance(one, dict) and one.keys() == default.keys()), default)
    shares = {"test": known["test"] if test is None else test,
              "validation": known["validation"] if validation is None else validation}  # fmt: skip
    # Rounded, as a sum need not be exact to the last bit, and the parts are compared with those of a model's card.
    if sum(shares.values()) > 1:
        told_shares = " and ".join(f"--{name} {share:g}" for name, share in shares.items())
        raise ConfigError(f"{told_shares} are more than all subjects")
    train = known["train"] if test is None and validation is None else round(1 - sum(shares.values()), 12)
    return Parts(train, **shares, seed=known["seed"] if parts_seed is None else parts_seed)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Give an observer: a line on a terminal that is gone in the end, log lines elsewhere."""
    from pfstore.cli.output import looking, now_and_then

    if not quiet and not sys.stderr.isatty():
        yield now_and_then(lambda now: {"features": now.features, **({"comparing": now.method} if now.method else {})})
        return
    with looking(quiet) as tell:
        yield lambda now: tell(
            f"{now.features:,} features fused" if now.method is None else f"comparing the templates of {now.method}"
        )


def _write(found: Evaluation, folder: Path | None, csv_file: Path | None) -> None:
    from pfstore.evaluation.tables import csv_text
    from pfstore.files import write_csv

    if folder is not None:
        from pfstore.evaluation.report import write_report

        write_report(found, folder)
    if csv_file is not None:
        write_csv(csv_file, csv_text(found))
