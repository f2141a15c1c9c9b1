"""The command line: it parses, calls one library function and renders. Only this package prints."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import click

from pfstore.cli import (
    backfill,
    calibrate,
    db,
    dedupe,
    demo,
    doctor,
    evaluate,
    explain,
    gallery,
    hdf5,
    health,
    init,
    model,
    refresh,
    runs,
    schedule,
    search,
    source,
    status,
    train,
    verify,
    worker,
)
from pfstore.cli.app import App, Group, global_options
from pfstore.errors import PfstoreError

EPILOG = """
\b
Exit codes:
  0    done; for verify: a match; also where rows were rejected (the summary
       counts them; backfill --strict answers 11 instead)
  1    verify: no match; health: degraded
  2    wrong usage
  3    configuration     4  gallery database     5  source
  6    model             7  contract             8  not found or empty
  9    probe or feature file                    10  another run is writing
  11   --strict: the run finished, some rows were rejected
  12   what is there stands against it: a name taken, a version in use
  13   search, verify: no answer within --deadline
  70   a defect in pfstore        130  interrupted

Every option is also an environment variable: --database is
PFSTORE_DATABASE, backfill's --limit is PFSTORE_BACKFILL_LIMIT.
"""


@click.group(cls=Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pfstore")
@global_options
@click.pass_context
def cli(context: click.Context) -> None:
    """One strong template per person, fused from the face features that a legacy database already holds.

    \b
    Start with:
      pfstore demo     the whole way on made-up data
      pfstore init     writes a commented pfstore.toml and creates the schema
    """
    context.ensure_object(App)


for command in (
    init.init,
    db.db,
    source.source,
    model.model,
    gallery.gallery,
    backfill.backfill,
    refresh.refresh,
    runs.run,
    schedule.schedule,
    worker.worker,
    search.search,
    verify.verify,
    calibrate.calibrate,
    dedupe.dedupe,
    explain.explain,
    train.train,
    evaluate.evaluate,
    status.status,
    health.health,
    doctor.doctor,
    hdf5.hdf5,
    demo.demo,
):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit: errors in one line on stderr, a traceback only with --traceback."""
    signal.signal(signal.SIGTERM, _terminated)
    # Whatever it warns of while a connection breaks, the error that ends the command says in words of ours.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    app = App()
    sys.exit(run(sys.argv[1:], app))


def run(arguments: list[str], app: App) -> int:
    """Run one command with these arguments and return its exit code."""
    if odd := [one for one in arguments if not one.isprintable() and _has_surrogates(one)]:
        click.echo(f"pfstore: the argument {odd[0]!r} is not UTF-8", err=True)
        return 2
    try:
        code = cli.main(arguments, "pfstore", standalone_mode=False, obj=app, auto_envvar_prefix="PFSTORE")
        # There is none where the caller has closed it.
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("pfstore: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; a second error at exit would say nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PfstoreError as error:
        return _failed(error, str(error), error.exit_code, app)
    except Exception as error:
        said = f"{type(error).__name__}: {error}; this is a defect: please report it with the output of --traceback"
        return _failed(error, said, PfstoreError.exit_code, app)
    return code if isinstance(code, int) else 0


def _failed(error: Exception, said: str, code: int, app: App) -> int:
    if app.traceback:
        traceback.print_exception(error)
    click.echo(f"pfstore: {' '.join(said.split())}", err=True)
    return code


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Ending in Python's own way lets the embedded server be stopped.
    sys.exit(128 + signal.SIGTERM)
