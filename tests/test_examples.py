"""The units and manifests that are given as examples, and the commands in the pages about operating pfstore."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pfstore import config
from pfstore.jobs.worker import Options
from tests.cli import conftest as cli
from tests.cli.conftest import Run
from tests.conftest import _missing

run = cli.run

ROOT = Path(__file__).parents[1]
UNITS = sorted((ROOT / "examples" / "systemd").iterdir())
MANIFESTS = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))
PAGES = (ROOT / "README.md", ROOT / "docs" / "production.md")
KUBERNETES = "1.37"
SCRIPT = "/opt/pfstore/bin/pfstore"


def _verified(folder: Path, *changes: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """Let systemd read the units, with the script that is installed here."""
    if shutil.which("systemd-analyze") is None:
        _missing("no systemd-analyze on this machine")
    copies: list[Path] = []
    for unit in UNITS:
        text = unit.read_text().replace(SCRIPT, str(Path(sys.executable).with_name("pfstore")))
        for before, after in changes:
            text = text.replace(before, after)
        copies.append(folder / unit.name)
        copies[-1].write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *map(str, copies)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    done = _verified(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "change", [("Restart=always", "Restart=sometimes"), ("OnCalendar=*-", "OnCalendar=x-"), ("\nKillMode", "\nKilMode")]
)
def test_systemd_sees_mistakes(change: tuple[str, str], tmp_path: Path) -> None:
    assert _verified(tmp_path, change).stderr


@pytest.mark.parametrize("unit", [one for one in UNITS if one.suffix == ".service"], ids=lambda unit: unit.stem)
def test_units_may_do_little(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        _missing("no systemd-analyze on this machine")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=50", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def _documents(manifest: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(manifest.read_text()) if one]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.stem)
def test_kubernetes_takes_the_manifests(manifest: Path) -> None:
    for document in _documents(manifest):
        assert kubernetes_validate.validate(document, KUBERNETES, strict=True) == KUBERNETES


def test_kubernetes_sees_mistakes() -> None:
    [document] = _documents(ROOT / "examples" / "kubernetes" / "cronjob.yaml")
    document["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError, match="concurencyPolicy"):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def _pods() -> Iterator[dict[str, Any]]:
    for manifest in MANIFESTS:
        for document in _documents(manifest):
            spec = document.get("spec", {})
            spec = spec.get("jobTemplate", {}).get("spec", spec)
            if "template" in spec:
                yield spec["template"]["spec"]


def test_pods_keep_to_the_restricted_standard() -> None:
    pods = list(_pods())
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            context = one["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_configuration_in_the_configmap(tmp_path: Path) -> None:
    [document] = _documents(ROOT / "examples" / "kubernetes" / "configmap.yaml")
    [(name, text)] = document["data"].items()
    (tmp_path / name).write_text(text)
    for pod in _pods():
        for one in pod["containers"]:
            given = {variable["name"]: "a secret" for variable in one["env"]}
            loaded = config.load(tmp_path / name, given)
            assert (set(loaded.galleries), set(loaded.schedules)) == ({"staff"}, {"nightly"})


def _grace(command: list[str]) -> float:
    return float(command[command.index("--grace") + 1])


def test_workers_have_the_time_to_stop() -> None:
    unit = next(one for one in UNITS if one.stem == "pfstore-worker@").read_text()
    timeout = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    [command] = _commands_of_units([unit])
    assert timeout is not None
    assert float(timeout[1]) > _grace(command) + Options().cut
    [pod] = [one for one in _pods() if "worker" in one["containers"][0]["command"]]
    assert pod["terminationGracePeriodSeconds"] > _grace(pod["containers"][0]["command"]) + Options().cut


def _commands_of_units(texts: list[str]) -> list[list[str]]:
    lines = re.findall(rf"^ExecStart={SCRIPT} (.*)$", "\n".join(texts), re.MULTILINE)
    return [shlex.split(line.replace("%i", "1").replace("%I", "staff")) for line in lines]


def _commands_of_page(page: Path) -> Iterator[list[str]]:
    """Yield the commands in a page's blocks of code."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            if found := re.match(r"(?:\$ )?pfstore ([^|<>;&]*)", line):
                yield shlex.split(found[1], comments=True)


def _commands() -> dict[str, list[str]]:
    pods = [one["command"][1:] for pod in _pods() for one in pod["containers"]]
    units = _commands_of_units([one.read_text() for one in UNITS if one.suffix == ".service"])
    pages = [command for page in PAGES if page.exists() for command in _commands_of_page(page)]
    return {shlex.join(command): command for command in (*pods, *units, *pages)}


COMMANDS = _commands()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_options_exist(command: str, run: Run) -> None:
    # An option that there is not, or a value that is missing, is refused before help is given.
    said = run(*COMMANDS[command], "--help")
    assert (said.code, said.err) == (0, "")


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) > 20
    assert any("health" in command for command in COMMANDS)
