"""`pfstore train` on made-up people: from the data to a model that is imported and evaluated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pfstore.fusion import load_model
from pfstore.parts import Parts
from pfstore.training.state import SUFFIX
from tests.cli.conftest import Run
from tests.training.conftest import _one_thread  # noqa: F401
from tests.training.samples import people, write_hdf5, write_npz

TOML = """
[sources.people]
path = "people.npz"
extractor = "made-up/sphere"
"""
NETWORK = ("--experts", "2", "--experts-selected", "2", "--domain-dimension", "3")
QUICK = (*NETWORK, "--subjects-per-batch", "20", "--epochs", "4", "--validation", "0.2", "--device", "cpu")
SOURCE = ("train", "--source", "people", *QUICK)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pfstore.toml and 60 people as npz; it is the cwd."""
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "people.npz", people())
    (tmp_path / "pfstore.toml").write_text(TOML)
    return tmp_path


def test_from_a_source_to_an_evaluated_model(folder: Path, run: Run) -> None:
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text() + TOML)
    write_npz(folder / "people.npz", people())
    said = run(*SOURCE, "--out", "hr.safetensors", "--json")
    assert said.code == 0, said
    document = said.json
    model = load_model(folder / "hr.safetensors")
    assert (document["file"], document["digest"]) == ("hr.safetensors", model.digest)
    card = model.describe()["card"]
    assert {key: one for key, one in document.items() if key not in ("file", "digest")} == card
    assert card["parts"] == Parts(0.6, 0.2, 0.2).as_dict()
    assert card["data"]["label"] == "people"
    assert card["contract"]["extractor"] == "made-up/sphere"
    assert said.err.splitlines()[0].startswith("60 subjects (train 60%, validation 20%, test 20%), 238 sets or media, ")
    assert said.err.splitlines()[1].startswith("step 1 of ")
    assert [line.removeprefix("pfstore: ") for line in said.err.splitlines() if line.startswith("pfstore: ")] == card[
        "warnings"
    ]

    imported = run("model", "import", "hr.safetensors", "--name", "own", "--json")
    assert (imported.code, imported.json["digest"]) == (0, model.digest)

    quick = ("--bootstrap", "20", "--draws", "1", "--strategy", "set")
    evaluated = run("evaluate", "--source", "people", "--part", "test", "--model", "hr.safetensors", *quick, "--json")
    assert (evaluated.code, evaluated.err) == (0, "")
    assert evaluated.json["facts"]["parts"] == card["parts"]
    assert evaluated.json["facts"]["subjects"] == card["part_subjects"]["test"]
    assert evaluated.json["methods"][0]["model"]["digest"] == model.digest


def test_from_hdf5(store: Path, run: Run) -> None:
    write_hdf5(store / "features" / "train" / "retinaface" / "adaface", people())
    hdf5 = ("train", "--hdf5", "features/train/retinaface/adaface", *QUICK)
    said = run(*hdf5, "--test", "0", "--out", "m.safetensors", "--json")
    assert said.code == 0, said
    assert said.json["contract"]["extractor"] == "retinaface/adaface"
    assert said.json["data"]["label"] == "adaface"
    assert said.json["part_subjects"]["test"] == 0
    refused = run(*hdf5, "--feature-dimension", "512", "--out", "n.safetensors")
    assert (refused.code, len(refused.err.splitlines())) == (9, 1)
    assert "no subject has a usable feature" in refused.err


@pytest.mark.parametrize("method", ["proxyfusion", "nan"])
def test_what_people_read(store: Path, run: Run, method: str) -> None:
    said = run("-q", *SOURCE, "--method", method, "--out", "m.safetensors")
    assert (said.code, said.err) == (0, "")
    lines = [line.split() for line in said.out.splitlines()]
    digest = load_model("m.safetensors").digest
    assert lines[0] == ["model", "m.safetensors,", digest[:12]]
    firsts = [line[0] for line in lines if line]
    assert next(one for one in firsts if one in (method, "average", "norm-weighted", "trimmed-mean")) == method
    assert ("selected" in firsts) == (method == "proxyfusion")


def test_the_default_parts_are_the_ones_that_evaluate_takes(store: Path, run: Run) -> None:
    options = [one for one in SOURCE if one not in ("--validation", "0.2")]
    found = run(*options, "--validation", "0.1", "--out", "m.safetensors", "--json")
    assert found.json["parts"] == Parts().as_dict()
    found = run(*options, "--validation", "0.1", "--test", "0.3", "--out", "n.safetensors", "--json")
    assert found.json["parts"] == Parts(0.6, 0.1, 0.3).as_dict()


def test_a_file_that_is_there_stays(store: Path, run: Run) -> None:
    out = store / "m.safetensors"
    out.write_bytes(b"dear")
    said = run(*SOURCE, "--out", "m.safetensors")
    assert (said.code, said.out, out.read_bytes()) == (12, "", b"dear")
    assert said.err == "pfstore: m.safetensors is there already: name another file, or say --overwrite\n"
    assert run("-q", *SOURCE, "--out", "m.safetensors", "--overwrite").code == 0
    assert out.read_bytes() != b"dear"


@pytest.mark.parametrize(
    ("code", "said", "arguments"),
    [
        (3, "experts must be at most 4 in a domain of 3 dimensions", ("--experts", "5")),
        (3, "selected must be from 1 to the 2 experts in all", ("--experts-selected", "3")),
        (3, "there is no device 'tpu': use auto, cpu or cuda", ("--device", "tpu")),
        (3, "a model's file ends in .safetensors", ("--out", "m.pt")),
        (3, "peopel", ("--source", "peopel")),
        (9, "the folder nowhere is not there", ("--out", "nowhere/m.safetensors")),
        (3, "--validation 0.5 and --test 0.6 leave nobody to train on", ("--validation", "0.5", "--test", "0.6")),
        (9, "the validation part has a share of 0", ("--validation", "0")),
        (9, "no feature of the source can be used", ("--feature-dimension", "512")),
    ],
)
def test_what_cannot_be_is_one_line(store: Path, run: Run, code: int, said: str, arguments: tuple[str, ...]) -> None:
    found = run("-q", *SOURCE, "--out", "m.safetensors", *arguments)
    assert (found.code, found.out) == (code, ""), found
    (line,) = found.err.splitlines()
    assert line.startswith("pfstore: ")
    assert said in line
    assert sorted(path.name for path in store.iterdir()) == ["people.npz", "pfstore.toml"]


@pytest.mark.parametrize("subjects", [1, 3])
def test_too_few_subjects(store: Path, run: Run, subjects: int) -> None:
    write_npz(store / "people.npz", people().select(lambda one: one in people().subjects[:subjects]))
    found = run("-q", *SOURCE, "--out", "m.safetensors")
    assert (found.code, len(found.err.splitlines())) == (9, 1)
    assert f"of all {subjects} subjects {subjects} have; take another source or other parts" in found.err


def test_wrong_use(store: Path, run: Run) -> None:
    for data in ((), ("--source", "people", "--hdf5", "x")):
        said = run("train", *data, "--out", "m.pt")
        assert (said.code, said.out) == (2, "")
        assert "name what to train on: either --source NAME or --hdf5 FOLDER" in said.err
    assert run("train", "--source", "people").code == 2
    for option in (("--dropout", "1"), ("--learning-rate", "0"), ("--subjects-per-batch", "1"), ("--epochs", "0"),
                   ("--validation", "nan"), ("--method", "x"), ("--media", "a-b"), ("--seed", "-1")):  # fmt: skip
        assert run(*SOURCE, "--out", "m.safetensors", *option).code == 2


def test_ctrl_c_keeps_what_is_done(store: Path, run: Run) -> None:
    epochs = ("--epochs", "40")
    whole = run("-q", *SOURCE, *epochs, "--out", "whole.safetensors", "--json").json
    script = Path(sys.executable).with_name("pfstore")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [script, *SOURCE, *epochs, "--out", "cut.safetensors"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    # The second line says that there is a validation, and so a state, to go on from.
    told = [running.stderr.readline() for _ in range(2)]
    running.send_signal(signal.SIGINT)
    rest = running.communicate(timeout=60)[1]
    assert told[1].startswith("step ")
    assert running.returncode == 130, rest
    assert rest.splitlines()[-1] == "pfstore: interrupted"
    assert "Traceback" not in rest
    assert not (store / "cut.safetensors").exists()
    assert (store / f"cut.safetensors{SUFFIX}").exists()

    other = run("-q", *SOURCE, "--epochs", "41", "--out", "cut.safetensors")
    assert (other.code, len(other.err.splitlines())) == (12, 1)
    assert "repeat those to go on with it, or start anew with --restart" in other.err

    went_on = run(*SOURCE, *epochs, "--out", "cut.safetensors", "--json")
    assert went_on.json["digest"] == whole["digest"]
    assert (store / "cut.safetensors").read_bytes() == (store / "whole.safetensors").read_bytes()
    assert list(store.glob(f"*{SUFFIX}*")) == []
