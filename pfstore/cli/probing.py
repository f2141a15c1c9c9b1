"""What `pfstore search` looks for and among whom: probes of files and sources, lists of subjects."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pfstore.errors import CancelledSetsError, InputError, NotFoundError

if TYPE_CHECKING:
    from pfstore.cli.app import App
    from pfstore.features import Floats
    from pfstore.fusion import Fuser
    from pfstore.gallery.among import Names
    from pfstore.gallery.database import Connection
    from pfstore.gallery.galleries import Version
    from pfstore.sources.probes import ProbeSets

SHOWN = 5
"""Names that a warning lists."""


@dataclass
class Probes:
    """Probes of a file or of a source, batch by batch. rejected: rows of the source that no probe has, by reason."""

    batches: Iterator[ProbeSets]
    source: str | None
    extractor: str | None = None
    rejected: Counter[str] = field(default_factory=Counter)

    def templates(self, fuser: Fuser, version: Version) -> Iterator[tuple[Sequence[str], Floats]]:
        """Fuse each batch: the probes' ids and [P, blocks*D] float32.

        A probe of a file whose features cancel each other is an error after those before it; a subject of a source is
        counted as rejected.
        """
        from pfstore.gallery import searching

        for sets in self.batches:
            left, label = sets, self.extractor or sets.extractor
            while len(left.ids):
                try:
                    made = searching.probe_templates(fuser, version, left.features, left.offsets, label)
                except CancelledSetsError as error:
                    at = error.numbers[0]
                    if good := at and left.part(0, at):
                        yield good.ids, searching.probe_templates(fuser, version, good.features, good.offsets, label)
                    self._cancelled(left, at, error)
                    left = left.part(at + 1, len(left.ids))
                else:
                    yield left.ids, made
                    break

    def _cancelled(self, sets: ProbeSets, at: int, error: CancelledSetsError) -> None:
        if self.source is None:
            said = str(error).replace(f"set {at}", f"probe {sets.ids[at]!r}")
            raise CancelledSetsError(said, error.of, error.numbers) from None
        self.rejected["cancelled out"] += int(sets.offsets[at + 1] - sets.offsets[at])


def checked_use(probes: str | None, source: str | None, among: str | None, extractor: str | None) -> None:
    """Raise UsageError where options contradict each other."""
    if (probes is None) == (source is None):
        raise click.UsageError("give --probes FILE or --source NAME, one of them")
    if source is not None and extractor is not None:
        raise click.UsageError("--extractor is for --probes; a source says itself what made its features")
    if probes == "-" and among == "@-":
        raise click.UsageError("--probes - and --among @- cannot both be read from standard input")


def of_file(path: str, extractor: str | None) -> Probes:
    """Open a file of probes, or standard input."""
    from pfstore.sources.probes import probe_batches

    return Probes(probe_batches(path), None, extractor)


@contextmanager
def of_source(app: App, name: str, version: Version) -> Iterator[Probes]:
    """Open a source of pfstore.toml, each subject of which is a probe; afterwards say what was rejected."""
    from pfstore.sources.probes import subject_batches

    rejected = Counter[str]()
    with app.source(name) as opened:
        batches = subject_batches(opened, f"source {name!r}", dimension=version.dimension, rejected=rejected)
        # What is half read must let go of the source before that is closed.
        with closing(batches):
            yield Probes(batches, name, rejected=rejected)
    if rejected and not app.quiet:
        told = ", ".join(f"{count:,} {reason}" for reason, count in rejected.most_common())
        click.echo(f"pfstore: {rejected.total():,} rows of source {name!r} were rejected ({told})", err=True)


@dataclass(frozen=True)
class Among:
    """The subjects that --among names, each once, and how many of them have a template."""

    names: Names
    enrolled: int

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"named": len(self.names), "enrolled": self.enrolled}


def named(app: App, connection: Connection, version: Version, told: str) -> Among:
    """Take @FILE or a query; say who has no template. Raises InputError, and NotFoundError where nobody has one."""
    from pfstore.gallery import among

    try:
        names = among.Names(_lines(told[1:])) if told.startswith("@") else among.asked(connection, told)
    except InputError as error:
        raise InputError(f"--among: {error}") from None
    if not names:
        raise InputError("--among names nobody")
    missing = among.absent(connection, version, names)
    if len(missing) == len(names):
        raise NotFoundError(f"none of the {len(names):,} subjects of --among has a template in {version.said}")
    if missing and not app.quiet:
        some = ", ".join(map(repr, missing[:SHOWN])) + (", …" if len(missing) > SHOWN else "")
        click.echo(
            f"pfstore: {len(missing):,} of the {len(names):,} subjects of --among have no template in {version.said}, "
            f"so nobody finds them: {some}",
            err=True,
        )
    return Among(names, len(names) - len(missing))


def _lines(path: str) -> list[str]:
    """Return the keys in a file, one a line."""
    where = "standard input" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}: line {line} is not UTF-8") from None
    if "\0" in text:
        raise InputError(
            f"{where}: line {text.count(chr(10), 0, text.index(chr(0))) + 1} holds a NUL, which no key has"
        )
    # Not splitlines: a key may hold what else Unicode takes for the end of a line.
    return [line for one in text.split("\n") if (line := one.removesuffix("\r"))]
