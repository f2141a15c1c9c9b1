"""`python -m bench.photographs FEATURES.npz MODEL`: one template for a person against every feature, on real ones.

Of the subjects that a training with default options leaves for testing, as `pfstore evaluate --source` splits them.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.search_accuracy import FPIRS, Accuracy, best_of_each
from bench.search_data import units
from pfstore.evaluation.protocols.experiment import Gallery, Samples
from pfstore.evaluation.protocols.split import split_experiment
from pfstore.features import FeatureBatch, Floats
from pfstore.fusion import Fuser, load_model
from pfstore.parts import Parts
from pfstore.sources.files import FileSource

_FEATURES = 20_000


@click.command()
@click.argument("features", type=click.Path(path_type=Path, exists=True))
@click.argument("model")
def main(features: Path, model: str) -> None:
    """Print rank-1 and FNIR, the means of all draws; features as a source of pfstore.toml has them at its `path`."""
    with FileSource(features, extractor="", name=features.stem) as source:
        galleries = split_experiment(source, parts=Parts()).galleries
    table = Table("", box=None)
    for head in ("rank 1", *(f"FNIR at FPIR {target}" for target in FPIRS)):
        table.add_column(head, justify="right")
    for name in ("every feature", "every feature, of the probe too", "average", model):
        fuser = None if name.startswith("every") else load_model(name)
        accuracies = [_accuracy(one, fuser, pairs=name.endswith("too")) for one in galleries]
        rows = np.array([(one.rank_1, *one.fnirs) for one in accuracies])
        table.add_row(name, *(f"{figure:.3f}" for figure in rows.mean(axis=0)))
    Console().print(table)


def _accuracy(gallery: Gallery, fuser: Fuser | None, *, pairs: bool) -> Accuracy:
    """Search with all probes; without a fuser in every feature, by the mean or, of pairs, by each of a probe's own."""
    subjects, references = _read(gallery.references)
    wanted, probes = _read(gallery.probes)
    scores: Floats
    if fuser:
        templates = fuser.templates(references.features, references.set_offsets, "gallery")
        scores = fuser.templates(probes.features, probes.set_offsets, "probe") @ templates.T
    elif pairs:
        each = best_of_each(units(probes.features), references.features, references.set_offsets)
        scores = np.maximum.reduceat(each, probes.set_offsets[:-1], axis=0)
    else:
        means = units(np.add.reduceat(units(probes.features), probes.set_offsets[:-1]))
        scores = best_of_each(means, references.features, references.set_offsets)
    places = {subject: place for place, subject in enumerate(subjects)}
    mates = np.array([places.get(subject, -1) for subject in wanted], dtype=np.int64)
    mated_first = np.argsort(mates < 0, kind="stable")
    return Accuracy.of(scores[mated_first], mates[mates >= 0])


def _read(samples: Samples) -> tuple[list[str], FeatureBatch]:
    """Return the subjects of all samples, and their features."""
    batches = list(samples.read(_FEATURES))
    subjects = [subject for batch in batches for subject in batch.subjects]
    return subjects, FeatureBatch.joined([batch.features for batch in batches])


main()
