"""Wrong use is answered by one line on stderr, nothing on stdout, and the documented exit code."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pfstore.fusion import random_model, to_bytes
from tests.cli.conftest import Run, write_legacy, write_probe
from tests.conftest import GOLDEN
from tests.memory import people

Fails = Callable[..., str]


@pytest.fixture
def fails(run: Run) -> Fails:
    """Run a command that must answer with this exit code and one line, and return that line."""

    def check(code: int, *arguments: str | Path) -> str:
        result = run(*arguments)
        assert result.code == code, result
        assert result.out == ""
        assert "Traceback" not in result.err
        line = result.err.splitlines()[-1]
        assert line.startswith("pfstore: "), result.err
        return line.removeprefix("pfstore: ")

    return check


def _edit(folder: Path, before: str, after: str) -> None:
    toml = folder / "pfstore.toml"
    assert before in toml.read_text()
    toml.write_text(toml.read_text().replace(before, after))


def test_no_server(folder: Path, fails: Fails) -> None:
    said = fails(4, "--database", "postgresql://me:hunter2@127.0.0.1:1/x", "status")
    assert "is the server running" in said
    assert "hunter2" not in said


def test_no_schema(folder: Path, fails: Fails, embedded_uri: str) -> None:
    assert "run `pfstore init`" in fails(4, "--database", embedded_uri, "status")


def test_a_missing_table_names_the_nearest(folder: Path, fails: Fails) -> None:
    _edit(folder, '"faces"', '"face"')
    said = fails(5, "backfill", "staff")
    assert "'face'" in said
    assert "faces" in said


def test_a_missing_column_names_the_nearest(folder: Path, fails: Fails) -> None:
    _edit(folder, '"person"', '"persn"')
    said = fails(5, "backfill", "staff")
    assert "'persn'" in said
    assert "person" in said


def test_an_unknown_key_names_the_nearest(folder: Path, fails: Fails) -> None:
    _edit(folder, "medium =", "medum =")
    said = fails(3, "backfill", "staff")
    assert "sources.hr.medum: unknown key; did you mean medium?" in said


def test_an_unknown_encoding(folder: Path, fails: Fails) -> None:
    _edit(folder, "float32-le", "float32-lee")
    assert "float32-le" in fails(3, "backfill", "staff")


def test_an_unknown_source_file(folder: Path, fails: Fails) -> None:
    _edit(folder, "legacy.db", "nowhere.db")
    assert "nowhere.db" in fails(5, "backfill", "staff")
    assert not (folder / "nowhere.db").exists()


def test_no_configuration_file(folder: Path, fails: Fails) -> None:
    assert "no such configuration file" in fails(3, "--config", "other.toml", "status")


def test_an_unknown_gallery(folder: Path, fails: Fails) -> None:
    assert "no gallery 'stuff'; did you mean staff" in fails(3, "backfill", "stuff")
    probe = write_probe(folder / "p.npz", {"a": np.ones((1, 8), np.float32)})
    assert "there is no gallery 'stuff'" in fails(8, "search", "stuff", "--probes", probe)


def test_an_empty_gallery(folder: Path, run: Run, fails: Fails) -> None:
    run("gallery", "create", "staff")
    probe = write_probe(folder / "p.npz", {"a": np.ones((1, 8), np.float32)})
    assert "it is empty; run `pfstore backfill staff`" in fails(8, "search", "staff", "--probes", probe)


def test_probes_that_do_not_fit(folder: Path, run: Run, fails: Fails) -> None:
    run("backfill", "staff")
    long = write_probe(folder / "long.npz", {"a": np.ones((1, 9), np.float32)})
    assert "9 values" in fails(7, "search", "staff", "--probes", long)
    other = write_probe(folder / "other.npz", {"a": np.ones((1, 8), np.float32)}, extractor="arcface")
    assert "'arcface'" in fails(7, "search", "staff", "--probes", other)
    good = write_probe(folder / "good.npz", {"a": np.ones((1, 8), np.float32)})
    assert "'arcface'" in fails(7, "verify", "staff", "s0001", "--probe", good, "--extractor", "arcface")
    assert "no template of subject 'nobody'" in fails(8, "verify", "staff", "nobody", "--probe", good)
    two = write_probe(folder / "two.npz", {"a": np.ones((1, 8), np.float32), "b": np.ones((1, 8), np.float32)})
    assert "takes one probe, there are 2" in fails(9, "verify", "staff", "s0001", "--probe", two)
    assert "nowhere.npz" in fails(9, "search", "staff", "--probes", "nowhere.npz")
    nan = write_probe(folder / "nan.npz", {"a": np.full((1, 8), np.nan, np.float32)})
    assert "nan.npz" in fails(9, "search", "staff", "--probes", nan)


def test_a_checkpoint_with_a_missing_key(folder: Path, fails: Fails) -> None:
    checkpoint = torch.load(GOLDEN / "reference_d32_e11_k4.pth.tar", weights_only=True)
    del checkpoint["state_dict"]["model_weights"]["pooler.3.6.bias"]
    torch.save(checkpoint, folder / "broken.pth.tar")
    assert "pooler.3.6.bias" in fails(6, "model", "import", "broken.pth.tar")


@pytest.mark.parametrize("name", ["cut.pth.tar", "cut.safetensors"])
def test_a_truncated_checkpoint(folder: Path, fails: Fails, name: str) -> None:
    whole = (GOLDEN / "reference_d32_e11_k4.pth.tar").read_bytes()
    if name.endswith("safetensors"):
        whole = to_bytes(random_model(8, experts=2, selected=1, seed=0))
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert name in fails(6, "model", "import", name)


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def test_a_pickle_that_would_run_code_does_not(folder: Path, fails: Fails) -> None:
    target = folder / "it-ran"
    (folder / "evil.pth.tar").write_bytes(pickle.dumps({"state_dict": _Payload(target)}))
    torch.save({"state_dict": _Payload(target)}, folder / "evil2.pth.tar")
    for name in ("evil.pth.tar", "evil2.pth.tar"):
        assert name in fails(6, "model", "import", name)
    assert not target.exists()


def test_another_models_dimension(folder: Path, run: Run, fails: Fails) -> None:
    run("model", "import", GOLDEN / "reference_d32_e11_k4.pth.tar", "--name", "small")
    _edit(folder, '"average"', '"small"')
    assert "features have 8 values" in fails(7, "backfill", "staff")


def test_a_model_that_is_not_registered(folder: Path, fails: Fails) -> None:
    _edit(folder, '"average"', '"adaface"')
    assert "no model 'adaface' is registered" in fails(8, "backfill", "staff")


def test_wrong_options(folder: Path, run: Run) -> None:
    result = run("serch", "staff")
    assert result.code == 2
    assert "No such command 'serch'" in result.err
    assert run("verify", "staff", "a", "--probe", "x", "--fmr", "0.1", "--threshold", "0.5").code == 2


def test_two_extractors_in_one_table(folder: Path, fails: Fails) -> None:
    import sqlite3

    connection = sqlite3.connect(folder / "legacy.db")
    connection.execute("UPDATE faces SET model = 'other' WHERE id % 2")
    connection.commit()
    connection.close()
    _edit(folder, 'extractor = "test-extractor"', 'extractor = { column = "model" }')
    said = fails(5, "backfill", "staff")
    assert "other" in said
    assert "test-extractor" in said


def test_a_traceback_only_where_asked_for(folder: Path, run: Run) -> None:
    assert "Traceback" not in run("search", "stuff", "--probes", "x.npz").err
    assert "Traceback" in run("--traceback", "search", "stuff", "--probes", "x.npz").err


def test_an_empty_store(folder: Path, fails: Fails) -> None:
    (folder / "legacy.db").unlink()
    write_legacy(folder / "legacy.db", people(0))
    assert "holds no feature" in fails(5, "backfill", "staff")
