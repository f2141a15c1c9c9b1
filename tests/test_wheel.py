"""What is shipped works without the checkout: the wheel, in a clean environment, from init to a backfill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from pfstore.gallery import schema
from tests.cli.conftest import CONFIG, write_legacy
from tests.memory import people

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without reaching for any other package."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    [built] = folder.glob("pfstore-*.whl")
    return built


def test_it_holds_what_it_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"pfstore/alembic.ini", "pfstore/migrations/env.py", "pfstore/py.typed"} <= names
    assert "pfstore/evaluation/report/templates/report.html.j2" in names
    here = {path.name for path in (CHECKOUT / "migrations" / "versions").glob("*.py")}
    assert here == {Path(name).name for name in names if name.startswith("pfstore/migrations/versions/")}
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_init_and_a_backfill_from_the_wheel(wheel: Path, embedded_uri: str, tmp_path: Path) -> None:
    python = _environment(tmp_path / "venv", wheel)
    write_legacy(tmp_path / "legacy.db", people(20))
    config = tmp_path / "pfstore.toml"
    config.write_text(CONFIG.format(url=embedded_uri))

    def run(*arguments: str) -> str:
        command = [str(python.with_name("pfstore")), *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [python, "-c", "import pfstore; print(pfstore.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path / "venv") in where.stdout
    assert json.loads(run("init", "--json"))["schema"] == schema.latest()
    assert "as it should be" in run("db", "check")
    assert json.loads(run("backfill", "staff", "--json"))["subjects"]["written"] == 20
    assert "photoprism" in {one["preset"] for one in json.loads(run("source", "presets", "--json"))}


def _environment(folder: Path, wheel: Path) -> Path:
    """Make an environment with the wheel alone; what it depends on is looked up where the tests have it."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
        capture_output=True,
    )
    [packages] = (folder / "lib").glob("python3*/site-packages")
    dependencies = Path(next(path for path in sys.path if path.endswith("site-packages")))
    # The checkout itself is not among them: an editable install is found by its .pth file, which is not read here.
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    return python
