"""`pfstore train`: a fusion model of one's own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Command, Number, plural
from pfstore.cli.spans import Span

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.parts import Parts
    from pfstore.training.data import TrainingData
    from pfstore.training.loop import Progress
    from pfstore.training.redundancy import Redundancy
    from pfstore.training.training import Trained

_SHARE = Number(0, 1)
_POSITIVE = Number(0, min_open=True)
_COUNT = click.IntRange(min=1)


@click.command(cls=Command)
@click.option("--source", help="Train on a source of pfstore.toml.")
@click.option("--hdf5", type=click.Path(path_type=Path), metavar="FOLDER", help="Train on feature files.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="Where the model goes: .safetensors, as `model import` takes it.",
)
@click.option(
    "--method",
    type=click.Choice(["proxyfusion", "nan"]),
    default="proxyfusion",
    show_default=True,
    help="The network; NAN is a smaller one, with templates of one block.",
)
@click.option("--experts", type=_COUNT, default=4, show_default=True, help="Experts in all.")
@click.option(
    "--experts-selected",
    "selected",
    type=_COUNT,
    help="Experts that each set is given to; a template has so many blocks [default: 4, or all of fewer].",
)
@click.option(
    "--domain-dimension",
    "domain",
    type=_COUNT,
    default=10,
    show_default=True,
    help="Of the projection in which experts are chosen; experts - 1 or more.",
)
@click.option("--extractor", help="What made the features of files whose folders do not tell.")
@click.option("--feature-dimension", "dimension", type=_COUNT, help="Values of a feature [default: as in the data].")
@click.option(
    "--proxy-loss-weight",
    type=Number(0),
    default=0.01,
    show_default=True,
    help="Of the loss that pins proxies to a simplex.",
)
@click.option("--dropout", type=Number(0, 1, max_open=True), default=0.1, show_default=True, help="Inside the experts.")
@click.option(
    "--learning-rate",
    type=_POSITIVE,
    default=1e-3,
    show_default=True,
    help="At its highest; it rises for a tenth of the steps and falls along a cosine.",
)
@click.option(
    "--subjects-per-batch",
    type=click.IntRange(min=2),
    default=170,
    show_default=True,
    help="Subjects of which a step draws a probe and a reference.",
)
@click.option("--repeats", type=_COUNT, default=1, show_default=True, help="Pairs of each subject in a batch.")
@click.option("--epochs", type=_COUNT, help="Passes over the subjects [default: 10, and 1,000 steps at least].")
@click.option(
    "--patience",
    type=_COUNT,
    default=10,
    show_default=True,
    help="Stop after so many validations, of 20 in all, without progress.",
)
@click.option(
    "--media",
    type=Span(),
    default="1-3",
    show_default=True,
    help="The fewest and the most media of a drawn set, where the data have no probes of their own.",
)
@click.option("--validation", type=_SHARE, default=0.1, show_default=True, help="Share of subjects to validate on.")
@click.option("--test", type=_SHARE, default=0.2, show_default=True, help="Share left for `evaluate --part test`.")
@click.option("--parts-seed", type=int, default=0, show_default=True, help="Decides which subject is in which part.")
@click.option(
    "--workers", type=click.IntRange(0, 64), default=1, show_default=True, help="Threads that draw batches ahead."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="bfloat16 computes the experts in half the bits.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides everything random.")
@click.option("--restart", is_flag=True, help="Forget an unfinished training of this file.")
@click.option("--overwrite", is_flag=True, help="Put the model in place of a file that is there.")
@click.pass_obj
def train(
    app: App,
    /,
    source: str | None,
    hdf5: Path | None,
    out: Path,
    extractor: str | None,
    dimension: int | None,
    validation: float,
    test: float,
    parts_seed: int,
    restart: bool,
    overwrite: bool,
    **chosen: Any,
) -> None:
    """Train a fusion model on features of people with several images or videos.

    Subjects are parted by their keys: most are trained on, some say when to stop, the rest is left for
    `evaluate --part test`. Interrupted, the same command goes on from the last validation.

    \b
    Example:
      pfstore train --source hr --out hr.safetensors
      pfstore train --hdf5 features/train/retinaface/adaface --test 0 --out ada.safetensors
      pfstore evaluate --source hr --part test --model hr.safetensors
      pfstore model import hr.safetensors --name hr
    """
    from pfstore.errors import ConfigError
    from pfstore.parts import Parts
    from pfstore.training.options import Options
    from pfstore.training.preparing import check_ready
    from pfstore.training.training import train

    if (source is None) == (hdf5 is None):
        raise click.UsageError("name what to train on: either --source NAME or --hdf5 FOLDER")
    if validation + test >= 1:
        raise ConfigError(f"--validation {validation:g} and --test {test:g} leave nobody to train on")
    # 1 - 0.1 - 0.3 is no 0.6 to the last bit, and `evaluate` compares the parts with those of the model's card.
    parts = Parts(round(1 - (validation + test), 12), validation, test, parts_seed)
    options = Options(parts=parts, **chosen)
    check_ready(out, options, overwrite=overwrite)
    data, told, label = _data(app, source, hdf5, dimension, extractor)
    if not app.quiet:
        _tell(data, parts)
    with _progress(app.quiet) as observe:
        trained = train(
            data, options, out, extractor=told, label=label, restart=restart, overwrite=overwrite, observe=observe
        )
    for warning in () if app.quiet else trained.outcome.warnings:
        click.echo(f"pfstore: {warning}", err=True)
    app.show(_document(trained, out), _shown(trained, out))


def _data(
    app: App, source: str | None, hdf5: Path | None, dimension: int | None, extractor: str | None
) -> tuple[TrainingData, str, str]:
    """Return what to train on, the extractor's label and the data's own."""
    from pfstore.errors import ContractError
    from pfstore.training.data import of_hdf5, of_source

    if source is not None:
        with app.source(source) as opened:
            data, told, label = of_source(opened, dimension), opened.extractor, source
        if extractor not in (None, told):
            raise ContractError(f"the source {source} has features of {told!r}, not {extractor!r}")
    else:
        assert hdf5 is not None
        data, told = of_hdf5(hdf5, extractor, dimension)
        label = hdf5.resolve().name
    return data, told, label


def _tell(data: TrainingData, parts: Parts) -> None:
    for warning in data.warnings:
        click.echo(f"pfstore: {warning}", err=True)
    read = data.counts.get("read", len(data.batch.features))
    sizes = ", ".join(f"{name} {getattr(parts, name):.0%}" for name in ("train", "validation", "test"))
    click.echo(
        f"{plural(len(data.subjects), 'subject')} ({sizes}), {plural(len(data.batch.media_offsets) - 1, 'set')} "
        f"or media, {len(data.batch.features):,} of {read:,} features usable",
        err=True,
    )


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Give an observer: a bar on a terminal, a line for each validation elsewhere."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        parts = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                 TextColumn("loss {task.fields[loss]:.3f} {task.fields[fnmr]} {task.fields[rate]:,.0f} features/s"),
                 TimeRemainingColumn(compact=True))  # fmt: skip
        with Bar(*parts, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("training", total=None, loss=0.0, fnmr="", rate=0.0)
            yield lambda now: bar.update(
                task, total=now.steps, completed=now.step, loss=now.loss, rate=now.rate, fnmr=_fnmr(now)
            )
    else:
        yield _Lines()


class _Lines:
    def __init__(self) -> None:
        self._told = -1
        self._start = time.monotonic()

    def __call__(self, now: Progress) -> None:
        if now.point is None or now.point.step == self._told:
            return
        self._told = now.point.step
        click.echo(
            f"step {now.point.step} of {now.steps}: loss {now.point.loss:.3f}, {_fnmr(now)}, "
            f"{now.rate:,.0f} features/s, {time.monotonic() - self._start:.0f} s",
            err=True,
        )


def _fnmr(now: Progress) -> str:
    return "" if now.point is None else f"FNMR {now.point.fnmr:.4f} at FMR {now.point.fmr:g}"


def _document(trained: Trained, out: Path) -> dict[str, Any]:
    card = trained.model.card
    assert card is not None
    return {"file": str(out), "digest": trained.model.digest, **card}


def _shown(trained: Trained, out: Path) -> RenderableType:
    from pfstore.cli.output import facts, stacked, table

    outcome = trained.outcome
    best = outcome.best
    told = {
        "model": f"{out}, {trained.model.digest[:12]}",
        "input": trained.model.normalisation,
        "steps": f"{outcome.steps:,}{', ended early' if outcome.ended_early else ''}; best at {best.step:,}",
        "held out": f"FNMR at FMR {outcome.standings[0].fmr:g} and its 95 % interval. These subjects chose the step, "
        "so `evaluate` on the test part is fairer:",
    }
    standings = [{"method": one.label, **_rate(one.fnmr)} for one in outcome.standings]
    return stacked(facts(told), table(standings, ("method", *_RATE)), *_redundancy(trained))


_RATE = ("FNMR", "from", "to", "errors", "of")


def _rate(rate: Any) -> dict[str, Any]:
    return {"FNMR": rate.value, "from": rate.low, "to": rate.high, "errors": rate.errors, "of": rate.trials}


def _redundancy(trained: Trained) -> Sequence[RenderableType]:
    from pfstore.cli.output import table

    found = trained.outcome.redundancy
    if found is None:
        return ()
    rows = [{"selected": one.experts, "values": one.values, **_rate(one.fnmr)} for one in found.settings]
    said = f"Blocks of a template have a cosine of {found.cosine:.3f} to each other: {_advice(found)}"
    return ("", table(rows, ("selected", "values", *_RATE)), said)


def _advice(found: Redundancy) -> str:
    most = found.settings[-1].experts
    if found.recommended is None:
        return "the held-out subjects are too few to tell whether fewer would do."
    if found.recommended == most:
        return f"all {most} selected are worth their place."
    values = found.settings[found.recommended - 1].values
    return (
        f"{found.recommended} of {most} selected do as well within the interval; train with --experts-selected "
        f"{found.recommended} for templates of {values:,} values."
    )
