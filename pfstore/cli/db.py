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


@db.command()
@click.option("--dry-run", is_flag=True, help="Print the SQL statements that are left, in order, and run none.")
@click.option(
    "--shards",
    type=click.IntRange(1, 32_000),
    help="Parts to cut the templates into, about one for each core of the workers [default: citus.shard_count].",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def distribute(app: App, dry_run: bool, shards: int | None, yes: bool) -> None:
    """Spread the templates over the nodes of a Citus cluster, by subject.

    The tables that searches and runs read beside them are kept whole on each node, the queue stays on the coordinator.
    The database needs the extension citus. One transaction, in which nobody else can write. What is distributed
    already is left as it is, so run it again after `pfstore db upgrade`, which may bring new tables.

    \b
    Example:
      pfstore db distribute --dry-run
      pfstore db distribute --shards 16 --yes
    """
    from pfstore.gallery import citus

    with app.connect() as connection:
        statements = citus.plan(connection, shards)
        if statements and not dry_run:
            if not yes:
                click.confirm("Distribute the tables of pfstore?", abort=True, err=True)
            statements = citus.distribute(connection, shards)
    document = {"dry_run": dry_run, "statements": statements}
    script = "".join(f"{one};\n" for one in ("BEGIN", *statements, "COMMIT"))
    app.show_text(document, script.rstrip() if statements else "everything is distributed already")
