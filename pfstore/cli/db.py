"""`pfstore db`: the schema and its migrations."""

from __future__ import annotations

from dataclasses import asdict

import click

from pfstore.cli.app import App, Group
from pfstore.errors import DatabaseError


@click.group(cls=Group)
def db() -> None:
    """Migrate and check the galleries' database."""


@db.command()
@click.pass_obj
def upgrade(app: App) -> None:
    """Create the schema or bring it to this version's state, in one transaction.

    Example: pfstore db upgrade
    """
    from pfstore.cli.output import facts
    from pfstore.gallery import schema

    found = asdict(schema.upgrade(app.database))
    app.show(found, facts(found))


@db.command()
@click.pass_obj
def status(app: App) -> None:
    """Show the versions of the server, of pgvector and of the schema.

    Example: pfstore db status --json | jq .schema
    """
    from pfstore.cli.output import facts
    from pfstore.gallery import schema

    found = schema.status(app.database)
    document = {"database": app.database.shown, **asdict(found), "current": found.is_current}
    app.show(document, facts(document))


@db.command()
@click.pass_obj
def check(app: App) -> None:
    """Compare the database's schema with the one that this version expects; exit 4 where they differ.

    Example: pfstore db check
    """
    from pfstore.gallery import schema

    found = schema.status(app.database)
    if not found.is_current:
        raise DatabaseError(
            f"the schema is at {found.schema or 'nothing'}, this pfstore needs {found.latest}: run `pfstore db upgrade`"
        )
    if differences := schema.check(app.database):
        raise DatabaseError(f"the schema was changed by hand: {'; '.join(differences)}")
    app.show({"schema": found.schema, "differences": []}, f"schema {found.schema}: as it should be")
