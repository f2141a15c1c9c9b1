"""`compact` in pfstore.toml and on the command line."""

from pathlib import Path

import numpy as np
import pytest

from pfstore.fusion import random_model, to_bytes
from tests.cli.conftest import Run, write_probe
from tests.memory import people


@pytest.fixture
def network(folder: Path, run: Run) -> Path:
    """The folder, with a network of three blocks as the gallery's model."""
    (folder / "m.safetensors").write_bytes(to_bytes(random_model(8, experts=5, selected=3)))
    assert run("model", "import", "m.safetensors").code == 0
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace('"average"', '"m"'))
    return folder


def test_the_option_goes_before_the_file(network: Path, run: Run) -> None:
    assert run("backfill", "staff", "--json").json["version"] == 1
    assert run("backfill", "staff", "--compact", "--json").json["version"] == 2
    with (network / "pfstore.toml").open("a") as file:
        file.write("compact = true\n")
    assert run("backfill", "staff", "--json").json["version"] == 2
    assert run("backfill", "staff", "--no-compact", "--json").json["version"] == 1
    versions = run("gallery", "show", "staff", "--json").json["versions"]
    assert [(one["compact"], one["blocks"]) for one in versions] == [(False, 3), (True, 1)]
    assert "compact" in run("gallery", "list").out


def test_every_command_uses_the_models_compact_form(network: Path, run: Run) -> None:
    run("backfill", "staff", "--compact")
    features = np.concatenate(list(people(30)["s0003"].values()))
    probe = write_probe(network / "one.npz", {"s0003": features})
    [found] = run("search", "staff", "--probes", probe, "--json").json["probes"]
    assert found["candidates"][0]["subject"] == "s0003"
    verified = run("verify", "staff", "s0003", "--probe", probe, "--json")
    assert verified.code == 0
    assert verified.json["score"] == pytest.approx(found["candidates"][0]["score"])
    others = {name: np.concatenate(list(media.values())) for name, media in people(30).items()}
    probes = write_probe(network / "all.npz", others)
    assert run("calibrate", "staff", "--probes", probes, "--json").code == 0
    document = run("explain", "staff", "s0003", "--json").json
    assert document["template"]["same"] is True
    assert {len(frame["shares"]) for frame in document["frames"]} == {1}
    tables = run("explain", "staff", "s0003").out
    assert "as stored" in tables
    # Shares of the sum are no one expert's.
    assert "expert 0" not in tables
    pytest.importorskip("matplotlib")
    assert run("explain", "staff", "s0003", "--plot", "x.svg").code == 0
    assert (network / "x.svg").stat().st_size > 1000


def test_a_model_of_one_block_is_refused(folder: Path, run: Run) -> None:
    for more in ((), ("--dry-run",)):
        said = run("backfill", "staff", "--compact", *more)
        assert said.code == 7
        assert said.err.strip().endswith(
            "the model average has one block already, so there is nothing to make compact: leave that out"
        )
