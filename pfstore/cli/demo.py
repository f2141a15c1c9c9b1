"""`pfstore demo`: the whole way on made-up data, by the commands that a user would type."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Command
from pfstore.errors import ConfigError, PfstoreError

if TYPE_CHECKING:
    from pfstore.synthetic import KnownProbes, Population

CONFIG = """\
# Written by `pfstore demo`: a made-up legacy store and two galleries made of it.

[database]
url = "embedded:server"

[sources.legacy]
url = "sqlite:///legacy.db"
table = "{table}"
subject = "person_id"
medium = "image_id"
feature = {{ column = "vec", encoding = "float32-le" }}
quality = "score"
where = "deleted_at IS NULL"
extractor = "{extractor}"

[galleries.staff]
source = "legacy"
model = "average"

[galleries.staff-proxyfusion]
source = "legacy"
model = "random-weights"
"""

DIMENSION = 256
MATED, STRANGERS = 400, 200


@click.command(cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="demo")
@click.option(
    "--subjects", default=2000, show_default=True, type=click.IntRange(MATED, 100_000), help="How many people."
)
@click.option("--seed", default=1, show_default=True, help="Another seed makes other people.")
@click.pass_obj
def demo(app: App, folder: Path, subjects: int, seed: int) -> None:
    """Show the whole way on made-up data: a legacy store in SQLite, an embedded server, fused galleries.

    Everything is kept in FOLDER (default: demo), to be looked at and tried on.

    Example: pfstore demo
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is there already: remove it, or name another folder: pfstore demo FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with chdir(folder):
        found = _Show(app).run(_population(subjects, seed))
    document = {"folder": str(folder), "subjects": subjects, "galleries": found}
    app.show(document, _next(folder, time.monotonic() - started))


def _population(subjects: int, seed: int) -> Population:
    from pfstore.synthetic import Population

    return Population(subjects=subjects, dimension=DIMENSION, seed=seed, features_per_subject=20)


@dataclass(frozen=True)
class _Show:
    """The steps; what a user would type is really run, and what it prints is shown."""

    app: App

    def run(self, population: Population) -> dict[str, Any]:
        """Go the whole way and return what each gallery identified."""
        probes = self._prepare(population)
        self._type("init")
        self._say("Does the mapping in pfstore.toml fit the store? Bad rows are named.")
        self._type("source", "check", "legacy", "--rows", "100000")
        self._say("A model with random weights stands in for a trained one; the gallery `staff` uses plain averaging.")
        self._type("model", "import", "random-weights.safetensors")
        self._say("Every subject becomes one template. Rows that cannot be used are counted and kept with the reason.")
        self._type("backfill", "staff")
        self._type("backfill", "staff-proxyfusion")
        self._say("Once more: nothing has changed, so nothing is written.")
        self._type("backfill", "staff")
        self._say("Which score is a match? All probes against everybody but themselves give thresholds with intervals.")
        self._type("calibrate", "staff", "--probes", "probes.npz")
        self._say("Who is this? Photos of two enrolled people and a stranger, none of which the store has.")
        self._type("search", "staff", "--probes", "three.npz", "--top", "3")
        self._say("Is this the one? The same photo as the one it shows, then as somebody else.")
        mine, other = probes.subjects[0], probes.subjects[1]
        self._type("verify", "staff", mine, "--probe", "one.npz")
        self._type("verify", "staff", other, "--probe", "one.npz", expected=1)
        self._say("Which of this one's photos make the template, and how much?")
        self._type("explain", "staff", mine, "--top", "3")
        self._say(f"All {MATED} probes of enrolled people and {STRANGERS} of strangers:")
        return {gallery: self._identify(gallery, probes) for gallery in ("staff", "staff-proxyfusion")}

    def _prepare(self, population: Population) -> KnownProbes:
        from pfstore.fusion import random_model, to_bytes
        from pfstore.synthetic import TABLE, known_probes, write_probes, write_sqlite

        self._say(f"A made-up legacy store of {population.subjects:,} people in legacy.db, with some bad rows.")
        written = write_sqlite(Path("legacy.db"), population, damage=3)
        self._say(f"It has {written.features:,} usable features of {population.dimension} values.")
        Path("pfstore.toml").write_text(CONFIG.format(table=TABLE, extractor=population.extractor), encoding="utf-8")
        Path("random-weights.safetensors").write_bytes(to_bytes(random_model(DIMENSION, experts=4, selected=4)))
        probes = known_probes(population, MATED, STRANGERS)
        write_probes(Path("probes.npz"), probes)
        write_probes(Path("three.npz"), _some(probes, [0, 1, MATED]))
        write_probes(Path("one.npz"), _some(probes, [0]))
        return probes

    def _say(self, text: str) -> None:
        if not self.app.json:
            click.secho(f"\n# {text}", fg="green")

    def _type(self, *arguments: str, expected: int = 0) -> str:
        """Run a command and show it with what it prints; return that."""
        from pfstore.cli import run

        if not self.app.json:
            click.secho(f"$ pfstore {shlex.join(arguments)}", bold=True)
        if not self.app.json:
            code, printed = run(list(arguments), App(quiet=True)), ""
        else:
            code, printed = _captured(*arguments)
        if code != expected:
            raise PfstoreError(f"the demo stopped: pfstore {shlex.join(arguments)} answered {code}")
        return printed

    def _identify(self, gallery: str, probes: KnownProbes) -> dict[str, Any]:
        code, printed = _captured("search", gallery, "--probes", "probes.npz", "--top", "1", "--json")
        if code:
            raise PfstoreError(f"the demo stopped: searching {gallery} answered {code}")
        best = [one["candidates"][0] for one in json.loads(printed)["probes"]]
        mated = [(one, truth) for one, truth in zip(best, probes.subjects, strict=True) if truth]
        hits = sum(one["subject"] == truth for one, truth in mated)
        highest = max(one["score"] for one, truth in zip(best, probes.subjects, strict=True) if not truth)
        found = {"rank_1": hits / len(mated), "highest_score_of_a_stranger": round(highest, 4)}
        if not self.app.json:
            click.echo(
                f"{gallery}: {hits} of {len(mated)} identified at rank 1; no stranger scores above {highest:.3f}"
            )
        return found


def _captured(*arguments: str) -> tuple[int, str]:
    from pfstore.cli import run

    with redirect_stdout(StringIO()) as printed:
        code = run(list(arguments), App(quiet=True))
    return code, printed.getvalue()


def _some(probes: KnownProbes, chosen: list[int]) -> KnownProbes:
    import numpy as np

    from pfstore.features import offsets_of
    from pfstore.sources.probes import ProbeSets
    from pfstore.synthetic import KnownProbes

    sets = probes.sets
    parts = [sets.features[sets.offsets[i] : sets.offsets[i + 1]] for i in chosen]
    some = ProbeSets(
        np.concatenate(parts), offsets_of([len(part) for part in parts]), [sets.ids[i] for i in chosen], sets.extractor
    )
    return KnownProbes(some, [probes.subjects[i] for i in chosen])


def _next(folder: Path, seconds: float) -> str:
    return f"""
Done in {seconds:.0f} s. People and weights are made up: the figures above say that it works, not how well.
To go on by hand:
  cd {folder}
  pfstore status
  pfstore gallery show staff
  pfstore search staff --probes probes.npz --top 1 --json | jq '.probes[0]'
For a store of your own: pfstore init in a new folder, then describe the store in pfstore.toml."""
