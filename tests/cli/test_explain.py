from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.memory import people

PEOPLE = people(30)


def _change(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(folder / "legacy.db")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def _use_proxyfusion(folder: Path, run: Run) -> None:
    from pfstore.fusion import random_model, to_bytes

    (folder / "m.safetensors").write_bytes(to_bytes(random_model(8, experts=5, selected=3)))
    assert run("model", "import", "m.safetensors").code == 0
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace('"average"', '"m"'))


def test_the_document(folder: Path, run: Run) -> None:
    _use_proxyfusion(folder, run)
    run("backfill", "staff")
    document = run("explain", "staff", "s0003", "--json").json
    assert list(document) == [
        "gallery", "version", "subject", "source", "model", "strategy", "exact", "features", "effective_frames",
        "outlier_limit", "template", "experts", "media", "frames", "rejects", "rejected", "excluded",
    ]  # fmt: skip
    assert (document["gallery"], document["version"], document["subject"]) == ("staff", 1, "s0003")
    assert (document["model"], document["strategy"], document["source"]) == ("m", "media", "hr")
    assert document["template"]["same"] is True
    features = np.concatenate(list(PEOPLE["s0003"].values()))
    assert document["features"] == {"read": len(features), "fused": len(features), "rejected": 0}
    assert [one["medium"] for one in document["media"]] == list(PEOPLE["s0003"])
    assert all(len(frame["shares"]) == len(frame["weights"]) == 3 for frame in document["frames"])


def test_the_tables(folder: Path, run: Run) -> None:
    _use_proxyfusion(folder, run)
    run("backfill", "staff")
    frames = sum(len(one) for one in PEOPLE["s0003"].values())
    said = run("explain", "staff", "s0003")
    assert said.code == 0
    assert f"{frames} frames in {len(PEOPLE['s0003'])} media fused" in said.out
    assert "as stored, cosine 1.0000" in said.out
    assert f"\nmedia: {len(PEOPLE['s0003'])}\n" in said.out
    assert f"\nframes: {frames}\n" in said.out
    assert "as a probe" in said.out
    assert said.out.count("expert ") >= 6
    assert f"\nframes: 2 of {frames}\n" in run("explain", "staff", "s0003", "--top", "2").out


def test_a_baseline_has_no_experts(folder: Path, run: Run) -> None:
    run("backfill", "staff")
    said = run("explain", "staff", "s0003").out
    assert "expert" not in said
    assert run("explain", "staff", "s0003", "--json").json["experts"] == {"gallery": None, "probe": None}


def test_what_is_wrong_with_a_subject_is_shown(folder: Path, run: Run) -> None:
    run("backfill", "staff")
    copy = "SELECT person, image, vec FROM faces WHERE person = 's0003' LIMIT 1"
    _change(
        folder,
        f"INSERT INTO faces (person, image, vec) {copy}",
        "INSERT INTO faces (id, person, image, vec) VALUES (9001, 's0003', '[red]', zeroblob(32))",
    )
    said = run("explain", "staff", "s0003").out
    assert "1 rejected (1 zero norm)" in said
    assert "the source has changed since" in said
    assert "`pfstore backfill staff` fuses it again" in said
    assert "duplicates  1 frame with the values of an earlier one" in said
    assert "conspicuous frames: 1\n" in said
    assert [line.split() for line in said.splitlines() if "[red]" in line] == [
        ["[red]", "9001", "zero", "norm", "norm", "0"]
    ]


def test_a_version(folder: Path, run: Run) -> None:
    run("backfill", "staff")
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace('"average"', '"norm-weighted"'))
    run("backfill", "staff")
    answers = [run("explain", "staff", "s0003", "--json", *more).json for more in ((), ("--version", "2"))]
    assert [(one["version"], one["model"]) for one in answers] == [(1, "average"), (2, "norm-weighted")]
    assert all(one["template"]["same"] for one in answers)
    assert run("explain", "staff", "s0003", "--version", "3").code == 8


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_picture(folder: Path, run: Run, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    run("backfill", "staff")
    said = run("explain", "staff", "s0003", "--plot", f"s.{suffix}")
    assert (said.code, said.err) == (0, "")
    assert (folder / f"s.{suffix}").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["staff", "S0003"], 8, "nor source 'hr' has a subject 'S0003'; did you mean 's0003'?"),
        (["stuff", "s0003"], 8, "there is no gallery 'stuff'; did you mean staff?"),
        (["staff", "s0003", "--plot", "x.jpg"], 9, "x.jpg: a picture ends in .png, .svg, .pdf"),
        (["staff", "s0003", "--plot", "no/such/x.png"], 9, "x.png: cannot be written: No such file"),
        (["staff"], 2, "Missing argument 'SUBJECT'"),
        (["staff", "s0003", "--top", "0"], 2, "0 is not in the range"),
    ],
)  # fmt: skip
def test_wrong_use(folder: Path, run: Run, arguments: list[str], code: int, words: str) -> None:
    run("backfill", "staff")
    said = run("explain", *arguments)
    assert said.code == code
    assert words in said.err


def test_a_gallery_that_the_configuration_does_not_name(folder: Path, run: Run) -> None:
    run("backfill", "staff")
    toml = folder / "pfstore.toml"
    toml.write_text(toml.read_text().replace("[galleries.staff]", "[galleries.stiff]"))
    said = run("explain", "staff", "s0003")
    assert said.code == 3
    assert "there is no gallery 'staff'; did you mean stiff?" in said.err
