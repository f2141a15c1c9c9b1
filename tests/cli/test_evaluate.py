"""`pfstore evaluate` on made-up people: the same figures on the terminal, as JSON, as CSV and in the report."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pfstore.cli import output
from pfstore.evaluation.tables import CSV
from pfstore.fusion import ProxyFusionModel, random_model, to_bytes
from pfstore.parts import Parts
from tests.cli.conftest import Run
from tests.training.samples import DIMENSION, people, write_hdf5, write_npz

TOML = """
[sources.people]
path = "people.npz"
extractor = "made-up/sphere"
"""
QUICK = ("--bootstrap", "20", "--fmr", "0.1", "--fmr", "0.01", "--fpir", "0.1", "--rank", "1")
SOURCE = ("evaluate", "--source", "people", "--draws", "1", *QUICK)
SEEN = "it may have seen them in training"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pfstore.toml and 60 people as npz; it is the cwd."""
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "people.npz", people())
    (tmp_path / "pfstore.toml").write_text(TOML)
    return tmp_path


def save(path: Path, parts: Parts, seed: int = 0, extractor: str = "made-up/sphere") -> None:
    """Write a network whose card says that it was trained on these parts."""
    card = {"contract": {"extractor": extractor, "dimension": DIMENSION}, "parts": parts.as_dict()}
    network = random_model(DIMENSION, experts=2, selected=2, seed=seed).network
    path.write_bytes(to_bytes(ProxyFusionModel(network, "scale:0.5", "trained", card)))


def columns(text: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in text.splitlines()]


def test_the_table_says_what_the_json_says(store: Path, run: Run) -> None:
    told = run(*SOURCE, "--model", "average", "--json")
    assert (told.code, told.err) == (0, "")
    document = told.json
    assert (document["experiment"], document["extractor"]) == ("people, test subjects", "made-up/sphere")
    assert [one["label"] for one in document["methods"]] == ["average (media)", "average (set)"]
    assert document["facts"]["parts"] == Parts().as_dict()
    text = run(*SOURCE, "--model", "average").out
    raw, cohort = text.split("Verification (1:1), cohort-normalised scores")
    for method in document["methods"]:
        label = method["label"].split()
        for scores, part in zip(method["scored"], (raw, cohort), strict=True):
            said = columns(part)
            for at in scores["verification"]["at"]:
                assert at["supported"]
                (line,) = [line for line in said if line[:3] == [f"{at['target']:g}", *label]]
                fnmr = at["fnmr"]
                assert line[3:8] == [
                    f"{fnmr['errors'] / fnmr['trials']:.4f}", f"{fnmr['low']:.4f}", "to", f"{fnmr['high']:.4f}",
                    f"{at['threshold']:.4f}",
                ]  # fmt: skip
                assert line[8:10] == [str(fnmr["errors"]), str(fnmr["trials"])]
        (searched,) = method["scored"][0]["identifications"]
        hits = searched["ranks"]["1"]
        shown = [f"{hits['errors'] / hits['trials']:.4f}", f"{hits['low']:.4f}–{hits['high']:.4f}"]
        assert [*label, *shown] in columns(raw)
    said = columns(text)
    facts = {line[0]: line[1:] for line in said[:6]}
    assert facts["features"] == ["made-up/sphere,", "24", "values"]
    assert facts["probes"][0] == f"{document['acquisition']['probes']},"


def test_every_number_of_the_json_is_a_number(store: Path, run: Run) -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for one in value.values() for text in texts(one)]
        if isinstance(value, list):
            return [text for one in value for text in texts(one)]
        return [value] if isinstance(value, str) else []

    document = run(*SOURCE, "--model", "average", "--strategy", "set", "--json").json
    del document["settings"]
    assert [text for text in texts(document) if text.replace(".", "").replace("-", "").isdecimal()] == []
    assert document["methods"][0]["label"] == "average"


def test_baselines_are_what_is_evaluated_where_no_model_is_named(store: Path, run: Run) -> None:
    found = run(*SOURCE, "--strategy", "media", "--json").json
    assert [one["label"] for one in found["methods"]] == ["average", "norm-weighted", "trimmed-mean"]


def test_csv_and_report(store: Path, run: Run) -> None:
    pytest.importorskip("matplotlib")
    chosen = (*SOURCE, "--model", "average", "--strategy", "set")
    said = run(*chosen, "--json")
    shown = run(*chosen, "--csv", "found.csv", "--report", "found")
    assert "found/report.html" in shown.out
    files = sorted(path.name for path in (store / "found").iterdir())
    assert files == ["figures", "report.html", "results.csv", "results.json"]
    written = (store / "found.csv").read_text()
    assert written == (store / "found" / "results.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(written)))
    assert tuple(rows[0]) == CSV
    for method in said.json["methods"]:
        for scores in method["scored"]:
            for at in scores["verification"]["at"]:
                (row,) = [
                    row
                    for row in rows
                    if (row["method"], row["scores"], row["metric"], row["first"])
                    == (method["label"], scores["scores"], "FNMR", "")
                    and float(row["target"]) == at["target"]
                ]
                assert (int(row["errors"]), int(row["trials"])) == (at["fnmr"]["errors"], at["fnmr"]["trials"])
                assert float(row["threshold"]) == at["threshold"]


def test_a_report_goes_into_no_folder_that_holds_other_things(store: Path, run: Run) -> None:
    pytest.importorskip("matplotlib")
    (store / "thesis").mkdir()
    (store / "thesis" / "chapter.txt").write_text("words")
    (store / "people.npz").unlink()
    said = run(*SOURCE, "--report", "thesis")
    # That there is no such source would be the next thing to be said.
    assert (said.code, said.out) == (9, "")
    assert said.err.startswith("pfstore: thesis: holds something that is no earlier report")
    said = run(*SOURCE, "--csv", "nowhere/found.csv")
    assert (said.code, said.err) == (9, "pfstore: nowhere/found.csv: the folder nowhere is not there\n")
    assert run(*SOURCE).code == 5


def test_hdf5(store: Path, run: Run) -> None:
    write_hdf5(store / "features" / "test" / "retinaface" / "adaface", people())
    found = run("evaluate", "--hdf5", "features/test", *QUICK, "--model", "average", "--json").json
    assert (found["extractor"], found["dimension"]) == ("retinaface/adaface", DIMENSION)
    assert found["acquisition"]["references"] == 60
    assert run("evaluate", "--hdf5", "nowhere", "--model", "average").code == 5


def test_a_protocol_gives_what_the_options_give(store: Path, run: Run) -> None:
    (store / "some.toml").write_text(
        '[protocol]\nkind = "split"\ndraws = 1\nname = "people"\n'
        'source = { path = "people.npz", extractor = "made-up/sphere" }\n'
    )
    by_file = run("evaluate", "--protocol", "some.toml", *QUICK, "--model", "average", "--json").json
    by_options = run(*SOURCE, "--part", "all", "--model", "average", "--json").json
    for one in (by_file, by_options):
        del one["settings"]["date"]
        for method in one["methods"]:
            del method["seconds"]
    assert by_file == by_options
    assert run("evaluate", "--protocol", "none.toml").code == 3


def test_the_parts_are_those_of_the_models_card(store: Path, run: Run) -> None:
    parts = Parts(0.6, 0.15, 0.25, 4)
    save(store / "own.safetensors", parts)
    own = run(*SOURCE, "--model", "own.safetensors", "--json")
    assert (own.err, own.json["facts"]["parts"]) == ("", parts.as_dict())
    told = run(
        *SOURCE, "--model", "own.safetensors", "--test", "0.25", "--validation", "0.15", "--parts-seed", "4", "--json"
    )
    assert (told.err, told.json["facts"]) == ("", own.json["facts"])


def test_it_warns_of_subjects_that_a_model_may_have_seen(store: Path, run: Run) -> None:
    save(store / "own.safetensors", Parts())
    save(store / "older.safetensors", Parts(seed=1), seed=1)
    both = ("--model", "own.safetensors", "--model", "older.safetensors", "--json")
    said = run(*SOURCE, *both)
    assert said.err.startswith("pfstore: older was trained on features of the same extractor")
    assert said.err.endswith(f"{SEEN}\n")
    assert [f"pfstore: {one}\n" for one in said.json["warnings"]] == [said.err]
    assert run("-q", *SOURCE, *both).err == ""
    for part in ("train", "validation", "all"):
        assert SEEN in run(*SOURCE, "--part", part, "--model", "own.safetensors").err
    assert run(*SOURCE, "--model", "own.safetensors").err == ""


def test_a_card_of_someone_else(store: Path, run: Run) -> None:
    network = random_model(DIMENSION, experts=2, selected=2).network
    (store / "m.safetensors").write_bytes(to_bytes(ProxyFusionModel(network, card={"parts": "all", "contract": 1})))
    said = run(*SOURCE, "--model", "m.safetensors", "--json")
    assert (said.code, said.json["facts"]["parts"]) == (0, Parts().as_dict())


def test_wrong_use(store: Path, run: Run) -> None:
    # Before any model is looked for.
    for targets in ((), ("--source", "people", "--hdf5", "x"), ("--hdf5", "x", "--protocol", "y")):
        said = run("evaluate", *targets, "--model", "no-such-model")
        assert (said.code, said.out) == (2, "")
        assert "name what to evaluate on: one of --source NAME, --hdf5 FOLDER and --protocol FILE" in said.err
    for option in (("--fmr", "0"), ("--fmr", "1"), ("--fpir", "nan"), ("--rank", "0"), ("--bootstrap", "-1"),
                   ("--media", "x"), ("--media", "-1"), ("--draws", "0"), ("--part", "none")):  # fmt: skip
        assert run(*SOURCE, *option).code == 2


@pytest.mark.parametrize(
    ("code", "said", "arguments"),
    [
        (6, "there is no file nothing.pt, and no baseline of that name", ("--model", "nothing.pt")),
        (9, "media: from at least 1 to at least as many, not 3 to 1", ("--media", "3-1")),
        (3, "--test 0.7 and --validation 0.7 are more than all subjects", ("--test", "0.7", "--validation", "0.7")),
        (7, "of 'other', people, test subjects has 'made-up/sphere'", ("--model", "other.safetensors")),
        (7, "takes features of 8 values, people, test subjects has 24", ("--model", "small.safetensors")),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(store: Path, run: Run, code: int, said: str, arguments: tuple[str, ...]) -> None:
    save(store / "other.safetensors", Parts(), extractor="other")
    (store / "small.safetensors").write_bytes(to_bytes(random_model(8, 2, 2)))
    found = run(*SOURCE, *arguments)
    assert (found.code, found.out) == (code, "")
    (line,) = found.err.splitlines()
    assert line.startswith("pfstore: ")
    assert said in line


def test_an_unknown_source(store: Path, run: Run) -> None:
    found = run("evaluate", "--source", "peopel", "--model", "average")
    assert (found.code, len(found.err.splitlines())) == (3, 1)
    assert "people" in found.err


def test_one_subject_only(store: Path, run: Run) -> None:
    write_npz(store / "people.npz", people().select(lambda one: one == people().subjects[0]))
    found = run(*SOURCE, "--part", "all", "--model", "average")
    assert (found.code, len(found.err.splitlines())) == (9, 1)
    assert "at least 2 such subjects are needed" in found.err


def test_a_source_without_media(store: Path, run: Run) -> None:
    write_npz(store / "people.npz", people(), media=False)
    found = run(*SOURCE, "--model", "average", "--json").json
    media, sets = (one["scored"][0]["verification"] for one in found["methods"])
    np.testing.assert_allclose(media["eer"], sets["eer"], atol=0.05)
    assert found["facts"]["media_drawn"] == [1, 3]


def test_a_narrow_terminal(store: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "stdout", lambda: Console(width=60, highlight=False, markup=False, emoji=False))
    lines = run(*SOURCE, "--model", "average", "--strategy", "set").out.splitlines()
    assert max(map(len, lines)) <= 60
    said = columns("\n".join(lines))
    assert said.count(["at", "FMR", "method", "FNMR", "95", "%", "interval", "threshold"]) == 2
    assert sum(line[:2] == ["0.01", "average"] for line in said) == 2


def test_a_part_of_feature_files(store: Path, run: Run) -> None:
    write_hdf5(store / "f", people())
    save(store / "own.safetensors", Parts(), extractor="a/b")
    where = ("evaluate", "--hdf5", "f", "--extractor", "a/b", *QUICK, "--model", "own.safetensors", "--json")
    whole = run(*where)
    assert (whole.json["acquisition"]["references"], SEEN in whole.err) == (60, True)
    found = run(*where, "--part", "test")
    tested = sum(Parts().of(one) == "test" for one in people().subjects)
    assert (found.json["acquisition"]["references"], SEEN in found.err) == (tested, False)
    assert found.json["experiment"] == "HDF5, each gallery against all probes, test subjects"
    assert run(*where, "--parts-seed", "0").json["facts"] == found.json["facts"]


@pytest.mark.parametrize(
    ("where", "option"),
    [
        (("--hdf5", "x"), ("--draws", "2")),
        (("--hdf5", "x"), ("--media", "1-2")),
        (("--source", "x"), ("--extractor", "y")),
        (("--protocol", "x"), ("--part", "all")),
        (("--protocol", "x"), ("--parts-seed", "1")),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    store: Path, run: Run, where: tuple[str, str], option: tuple[str, str]
) -> None:
    said = run("evaluate", *where, *option)
    assert said.code == 2
    assert f"{option[0]} is for" in said.err


def test_a_report_below_a_file_is_refused_before_reading(store: Path, run: Run) -> None:
    pytest.importorskip("matplotlib")
    said = run("evaluate", "--source", "nobody", "--report", "people.npz/report")
    assert said.code == 9
    assert "is no folder that can be written to" in said.err


REAL = Path(__file__).parents[3] / "shared" / "realdata" / "lfw_arcface.npz"


@pytest.mark.skipif(not REAL.exists(), reason="the real features lie beside the checkout and are not there")
def test_real_features(store: Path, run: Run) -> None:
    with (store / "pfstore.toml").open("a") as file:
        file.write(f'\n[sources.lfw]\npath = "{REAL}"\nextractor = "x/arcface"\n')
    more = ("--part", "all", "--draws", "1", "--bootstrap", "50", "--json")
    found = run("evaluate", "--source", "lfw", "--model", "average", *more).json
    both = found["facts"]["roles"]["both"]
    assert (found["facts"]["subjects"], both > 100) == (158, True)
    for method in found["methods"]:
        verification = method["scored"][0]["verification"]
        assert verification["mated"] == both
        assert verification["eer"] < 0.02


def test_a_compact_form_stands_beside_its_model(store: Path, run: Run) -> None:
    save(store / "m.safetensors", Parts())
    chosen = (*SOURCE, "--model", "m.safetensors", "--model", "average", "--strategy", "media", "--compact")
    said = run(*chosen, "--json")
    assert (said.code, said.err) == (0, "")
    assert [one["label"] for one in said.json["methods"]] == ["m", "m, compact", "average"]
    assert [one["values"] for one in said.json["methods"]] == [2 * DIMENSION, DIMENSION, DIMENSION]
    assert said.json["facts"]["parts"] == Parts().as_dict()
    assert ["m,", "compact"] in [line[1:3] for line in columns(run(*chosen).out)]
    refused = run(*SOURCE, "--model", "average", "--compact")
    assert refused.code == 7
    assert "average: none has several blocks, and so none a compact form: leave that out" in refused.err
