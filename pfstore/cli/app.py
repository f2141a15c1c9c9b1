"""What every command shares: the global options, the configuration, the database, the way to print."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pfstore.errors import DatabaseError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.config import Config, SourceConfig
    from pfstore.gallery.database import Connection, Database
    from pfstore.sources.base import FeatureSource

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass
class App:
    """The global options of one call and what follows from them, made when first needed."""

    config_file: Path | None = None
    database_url: str | None = None
    json: bool = False
    verbose: int = 0
    quiet: bool = False
    traceback: bool = False

    @cached_property
    def config(self) -> Config:
        """pfstore.toml."""
        from pfstore import config

        loaded = config.load(self.config_file)
        self._tell(f"configuration: {loaded.file or 'none, so everything is at its default'}")
        return loaded

    @cached_property
    def database(self) -> Database:
        """The galleries' database; an embedded server is started."""
        from pfstore.gallery.database import Database

        opened = Database.open(self.database_url or self.config.database.url, self.config.folder)
        self._tell(f"database: {opened.shown}")
        return opened

    @cached_property
    def replica(self) -> Database | None:
        """The replica that searches are sent to, None where there is none: one of the file belongs to its own url."""
        from pfstore.gallery.database import Database

        if self.database_url or self.config.database.read_url is None:
            return None
        try:
            return Database.open(self.config.database.read_url, self.config.folder)
        except DatabaseError as error:
            raise DatabaseError(f"[database] read_url: {error}") from None

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Connect to the galleries' database."""
        with self.database.connect() as connection:
            yield connection

    @contextmanager
    def connect_reading(self, *, fresh: bool = False) -> Iterator[Connection]:
        """Connect to the replica where there is one, else to the galleries' database. fresh: always to the latter.

        Raises DatabaseError naming the replica where that cannot be reached or does something wrong.
        """
        if fresh or self.replica is None:
            with self.connect() as connection:
                yield connection
            return
        try:
            with self.replica.connect() as connection:
                yield connection
        except DatabaseError as error:
            raise DatabaseError(f"replica {error}; --fresh asks the primary") from error

    def lag(self, connection: Connection, *, fresh: bool) -> dict[str, Any]:
        """Return what --json tells of the replica that answers, and tell it with -v; nothing where the primary does."""
        from pfstore.gallery import replica

        if fresh or self.replica is None:
            return {}
        seconds = replica.lag(connection)
        self._tell(f"replica: {self.replica.shown}, {replica.said(seconds)}")
        return {"replica": {"lag_seconds": seconds}}

    def mapping(self, name: str) -> SourceConfig:
        """Return a source of pfstore.toml with its preset filled in."""
        from pfstore.sources import complete_source

        return complete_source(self.config.source(name), name, self.config.folder)

    def source(self, name: str) -> FeatureSource:
        """Open a source of pfstore.toml."""
        from pfstore.sources import open_source

        return open_source(self.config.source(name), name, self.config.folder)

    def show(self, document: Any, table: RenderableType) -> None:
        """Print the result: with --json the document, else the table."""
        if self.json:
            click.echo(json.dumps(document, ensure_ascii=False, default=str))
        else:
            from pfstore.cli.output import stdout

            stdout().print(table)

    def show_text(self, document: Any, text: str) -> None:
        """Print the result: with --json the document, else text as it is, for pasting."""
        click.echo(json.dumps(document, ensure_ascii=False, default=str) if self.json else text)

    def _tell(self, text: str) -> None:
        if self.verbose and not self.quiet:
            click.echo(text, err=True)


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> Any:
        # The command's own option, where it is given, comes after the group's and wins.
        if value:
            setattr(context.ensure_object(App), name, value)
        return value

    return callback


def _options(*, hidden: bool) -> list[click.Option]:
    def option(*names: str, keep: str, show: bool = False, **attributes: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_keep(keep), hidden=hidden and not show, **attributes)

    path = click.Path(dir_okay=False, path_type=Path)
    return [
        option("--config", type=path, keep="config_file", metavar="FILE",
               help="Configuration [default: ./pfstore.toml, then the user's configuration folder]."),
        option("--database", keep="database_url", metavar="URL",
               help="The galleries' PostgreSQL, or embedded:[FOLDER]; goes before the configuration."),
        option("--json", is_flag=True, keep="json", show=True, help="Print one JSON document on stdout."),
        option("-v", "--verbose", count=True, keep="verbose", help="Say which configuration and database are used."),
        option("-q", "--quiet", is_flag=True, keep="quiet", help="Say nothing on stderr but errors."),
        option("--traceback", is_flag=True, keep="traceback", help="Show where in the code an error came from."),
    ]  # fmt: skip


def global_options(command: Decorated) -> Decorated:
    """Add the global options to a function that becomes the top of the command line."""
    # Where click itself keeps the options of a function until it becomes a command.
    command.__dict__.setdefault("__click_params__", []).extend(reversed(_options(hidden=False)))
    return command


class Command(click.Command):
    """A command that also takes the global options after its own name, where many look for them."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.params.extend(_options(hidden=True))


class Number(click.FloatRange):
    """A range of numbers; what is not a number is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse NaN, which no comparison with a bound catches."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


RATE = Number(0, 1, min_open=True, max_open=True)
"""An error rate."""


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


def plural(count: int, noun: str) -> str:
    """Return "1 shard", "2 shards"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
