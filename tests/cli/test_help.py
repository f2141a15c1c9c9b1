"""Every command has help with an example, and every option says what it does."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from pfstore.cli import cli
from tests.cli.conftest import Run


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*path, name))
    else:
        yield path, command


COMMANDS = dict(_commands(cli))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...], run: Run) -> None:
    said = run(*path, "--help")
    assert said.code == 0
    assert "Example:" in said.out
    assert f"pfstore {' '.join(path)}" in said.out.split("Example:")[1]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_options_are_explained(path: tuple[str, ...]) -> None:
    unexplained = [p.name for p in COMMANDS[path].params if isinstance(p, click.Option) and not (p.help or p.hidden)]
    assert unexplained == []


def test_the_exit_codes_are_those_of_the_errors(run: Run) -> None:
    from pfstore import errors

    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type))
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.PfstoreError)}
    said = run("--help").out
    assert "Exit codes:" in said
    documented = {int(word) for word in said.split("Exit codes:")[1].split() if word.isdigit()}
    assert codes <= documented
