"""A user's folder: a legacy store in SQLite, a pfstore.toml, and the command line in this process."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pfstore.cli
from pfstore.cli.app import App
from pfstore.features import Floats
from pfstore.gallery.database import Database
from tests.memory import Subjects, people

CONFIG = """
[database]
url = "{url}"

[sources.hr]
url = "sqlite:///legacy.db"
table = "faces"
subject = "person"
medium = "image"
feature = {{ column = "vec", encoding = "float32-le" }}
extractor = "test-extractor"

[galleries.staff]
source = "hr"
model = "average"
"""


@dataclass(frozen=True)
class Result:
    """What one command printed and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


Run = Callable[..., Result]


def write_legacy(path: Path, subjects: Subjects) -> None:
    """Write features by subject and medium into a table `faces` of a SQLite file."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE faces (id INTEGER PRIMARY KEY, person TEXT, image TEXT, vec BLOB, model TEXT)")
    rows = [
        (subject, medium, vector.astype("<f4").tobytes(), "test-extractor")
        for subject, media in subjects.items()
        for medium, vectors in media.items()
        for vector in vectors
    ]
    connection.executemany("INSERT INTO faces (person, image, vec, model) VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()


def write_probe(path: Path, sets: Mapping[str, Floats], **more: Any) -> Path:
    """Write probe sets by id as npz."""
    offsets = np.cumsum([0, *(len(features) for features in sets.values())])
    np.savez(path, features=np.concatenate(list(sets.values())), offsets=offsets, ids=np.array(list(sets)), **more)
    return path


def process(*arguments: str | Path, **environment: str) -> Result:
    """Run the installed script as a process of its own, which takes an embedded server down with it."""
    script = Path(sys.executable).with_name("pfstore")
    done = subprocess.run(
        [script, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=240
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Path:
    """A folder with pfstore.toml for a fresh migrated database and a legacy store of 30 people; it is the cwd."""
    monkeypatch.chdir(tmp_path)
    write_legacy(tmp_path / "legacy.db", people(30))
    (tmp_path / "pfstore.toml").write_text(CONFIG.format(url=database.uri))
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command of pfstore and return what it printed."""

    def call(*arguments: str | Path) -> Result:
        capfd.readouterr()
        code = pfstore.cli.run([str(argument) for argument in arguments], App())
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call
