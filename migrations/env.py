"""Runs migrations on the connection that pfstore hands over, or on the configured database for `alembic`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from pfstore.gallery import schema, tables


def run(connection: sa.Connection) -> None:
    """Migrate inside the connection's transaction, so that a migration happens whole or not at all."""
    connection.execute(sa.schema.CreateSchema(tables.SCHEMA, if_not_exists=True))
    if connection.scalar(sa.text("SELECT true FROM pg_extension WHERE extname = 'citus'")):
        connection.execute(sa.text("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'"))
    # Only a superuser sets pgvector's parameters, as functions do, in a session that has not loaded it.
    where = connection.scalar(
        sa.text(
            "SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
            " WHERE extname = 'vector'"
        )
    )
    if where:
        connection.execute(sa.text(f"SELECT CAST('[1]' AS {where}.vector)"))
    context.configure(
        connection=connection,
        target_metadata=tables.metadata,
        version_table_schema=tables.SCHEMA,
        include_schemas=True,
        include_object=schema.is_ours,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with schema.configured_engine().begin() as connection:
        run(connection)
