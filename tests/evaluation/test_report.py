from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import ConfigError, InputError
from pfstore.evaluation import tables, wording
from pfstore.evaluation.plots import figures
from pfstore.evaluation.report import Report, check, write_report
from pfstore.evaluation.report.page import page
from pfstore.evaluation.report.writing import MARK
from pfstore.evaluation.results import Evaluation
from tests.evaluation import made_up

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = "<b>&amp; $x^2$ \"'{{ 7*7 }}"


class Page(HTMLParser):
    """What a page holds. Raises AssertionError where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[tuple[float, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes)
        if tag == "data":
            self.data.append((float(dict(attributes)["value"] or "nan"), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] == "data":
            self.data[-1] = (self.data[-1][0], self.data[-1][1] + data)

    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return made_up.evaluation(
        {"average": 4.2, HOSTILE: 5.1, "other": 4.3},
        kinds=("raw", "cohort"),
        non_mated=40_000,
        galleries=("G<1>",),
        name="</title><script>alert(1)</script>",
        warnings=["<img src=http://example.invalid/x>"],
        facts={"<i>": {"deep": ["</dd>", 12_345, None, True]}, "nothing": {}},
    )


@pytest.fixture(scope="module")
def written(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report(evaluation, tmp_path_factory.mktemp("reports") / "one")


@pytest.fixture(scope="module")
def html(written: Report) -> str:
    return written.page.read_text(encoding="utf-8")


def test_the_folder_holds_what_is_told(written: Report, evaluation: Evaluation) -> None:
    there = sorted(path for path in written.folder.rglob("*") if path.is_file())
    assert sorted(written.files) == there
    assert written.files[0] == written.page == written.folder / "report.html"
    pictures = {path.name for path in there if path.parent.name == "figures"}
    assert pictures == {f"{name}.{suffix}" for name in figures(evaluation) for suffix in ("svg", "png")}
    assert [path.name for path in written.folder.parent.iterdir()] == ["one"]


def test_the_page_is_whole_and_asks_for_nothing_else(html: str) -> None:
    made = Page(html)
    tags = [tag for tag, _ in made.tags]
    assert not {"script", "link", "img", "iframe", "object", "image", "i", "picture"} & set(tags)
    assert tags.count("h1") == 1
    for _, attributes in made.tags:
        assert not {"src", "srcset", "xlink:href", "xmlns", "onload", "action"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert re.findall(r"url\((?!#)", " ".join(filter(None, attributes.values()))) == []
    styles = "".join(re.findall(r"<style>.*?</style>", html, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert "<style" not in html.replace("<style>", "", 1)


def test_links_and_labels_within_the_page_lead_somewhere(html: str) -> None:
    made = Page(html)
    ids = [attributes["id"] for _, attributes in made.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = [(attributes.get("href") or "")[1:] for _, attributes in made.tags if "href" in attributes]
    targets += [attributes["aria-labelledby"] or "" for _, attributes in made.tags if "aria-labelledby" in attributes]
    targets += re.findall(r"url\(#([^)]+)\)", html)
    assert len(targets) > 100
    assert set(targets) <= set(ids)


def test_what_users_name_is_text(html: str) -> None:
    made = Page(html)
    assert HOSTILE in made.text
    assert "G<1>, N = 491" in made.text
    assert "<img src=http://example.invalid/x>" in made.text
    assert "</title><script>alert(1)</script>" in made.text
    assert "</dd>, 12,345, –, yes" in made.words()
    labels = [attributes["aria-label"] or "" for tag, attributes in made.tags if tag == "svg"]
    assert len(labels) == 14
    assert all(HOSTILE in label for label in labels)


def test_control_characters_are_spelt_out(evaluation: Evaluation) -> None:
    odd = "a\x00b\u202ec\ud800"
    methods = [replace(evaluation.methods[0], label=odd)]
    text = page(replace(evaluation, methods=methods, experiment=odd, warnings=[odd]), {})
    assert r"a\x00b\u202ec\ud800" in text
    assert not {"\x00", "\u202e", "\ud800"} & set(text)


def test_figures_have_only_colours_that_change_with_the_page(html: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 14
    light, dark = re.findall(r":root \{ (--c0.*?)\}", html)
    for defined in (light, dark):
        names = set(re.findall(r"(--c\d+):", defined))
        assert {name for drawing in drawings for name in re.findall(r"var\((--c\d+)\)", drawing)} <= names
    for drawing in drawings:
        assert re.findall(r"#[0-9a-fA-F]{3,6}\b(?!-)", re.sub(r'(href="|url\()#[^")]*', "", drawing)) == []
        assert "rgb" not in drawing


def test_numbers_of_the_page_are_those_of_the_json(html: str, written: Report) -> None:
    document = json.loads((written.folder / "results.json").read_text(encoding="utf-8"))
    shown = Page(html).data
    for number, text in shown:
        assert text == wording.decimal(number)
    expected: list[float] = []
    for kind in range(2):
        for method in document["methods"]:
            one = method["scored"][kind]["verification"]
            rates = [value(at["fnmr"]) for at in one["at"] if at["supported"]]
            expected += [*rates, one["eer"]]
        for method in document["methods"]:
            one = method["scored"][kind]["identifications"][0]
            expected += [value(rate) for rate in one["ranks"].values()]
            expected += [value(at["fnir"]) for at in one["at"]]
    acquisition = document["acquisition"]
    expected += [acquisition["probe_failures"] / acquisition["probes"], 0.0]
    for kind in range(2):
        scored = [method["scored"][kind] for method in document["methods"]]
        expected += details(scored)
    assert [number for number, _ in shown] == pytest.approx(expected, abs=0, rel=1e-15)


def value(rate: Mapping[str, Any]) -> float:
    return float(rate["errors"] / rate["trials"])


def details(scored: list[dict[str, Any]]) -> list[float]:
    """The appendix of one kind of scores: operating points, sizes, searches."""
    made: list[float] = []
    ats = [one["verification"]["at"] for one in scored]
    for rows in zip(*ats, strict=True):
        for at in rows:
            if at["supported"]:
                tar = (at["fnmr"]["trials"] - at["fnmr"]["errors"]) / at["fnmr"]["trials"]
                made += [at["threshold"], value(at["fmr"]), value(at["fnmr"]), tar, value(at["frr"]), value(at["far"])]
    for place in (2, 3):
        made += [value(size["fnmr"][place]) for one in scored for size in one["verification"]["by_size"]]
    for rows in zip(*(one["identifications"][0]["at"] for one in scored), strict=True):
        for at in rows:
            made += [at["threshold"], value(at["fpir"]), value(at["fnir"])]
    return made


def test_counts_and_intervals_stand_beside_rates(html: str, evaluation: Evaluation) -> None:
    words = Page(html).words()
    at = evaluation.methods[0].scored[0].verification.at[2]
    told = f"{at.fnmr.value:.4f} {at.fnmr.low:.4f} to {at.fnmr.high:.4f} {at.fnmr.errors:,} / 4,000"
    assert words.count(told) == 2
    assert "needs 100,000" in words
    assert "needs 1,000,000" in words
    assert "37 / 4,037" in words


def test_json_is_the_evaluation(written: Report, evaluation: Evaluation) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (written.folder / "results.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == evaluation.as_dict()


def test_csv_is_the_rows(written: Report, evaluation: Evaluation) -> None:
    with (written.folder / "results.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    rows = list(tables.csv_rows(evaluation))
    assert [row["method"] or None for row in read] == [row["method"] for row in rows]
    assert [float(row["value"]) for row in read] == [row["value"] for row in rows]


def test_svg_files_stand_alone(written: Report) -> None:
    for path in written.files:
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            assert "xmlns=" in text
            assert "var(" not in text
            assert "<dc:date>" not in text
            assert "<!--" not in text


def test_the_page_is_small_enough_to_send(html: str) -> None:
    # Three methods, both kinds of scores.
    assert len(html.encode()) < 1_200_000


def test_the_same_evaluation_gives_the_same_bytes_also_from_threads(tmp_path: Path) -> None:
    made = made_up.evaluation({"average": 4, "other": 5}, mated=500, non_mated=5_000, by_size=False)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda name: write_report(made, tmp_path / name), ["one", "two"]))
    files = [{path.relative_to(one.folder): path.read_bytes() for path in one.files} for one in reports]
    assert len(files[0]) == 3 + 2 * 6
    assert files[0] == files[1]


def test_an_earlier_report_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    more = made_up.evaluation({"a": 4}, mated=100, non_mated=1_000, by_size=False)
    first = write_report(more, folder)
    fewer = write_report(made_up.evaluation({"b": 4}, mated=0, non_mated=0, galleries=(), by_size=False), folder)
    assert len(first.files) > len(fewer.files) == 3
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(fewer.files)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    made = made_up.evaluation({"a": 4}, mated=0, non_mated=0, galleries=(), by_size=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something that is no earlier report"):
        write_report(made, tmp_path)
    page_of_others = tmp_path / "others"
    page_of_others.mkdir()
    (page_of_others / "report.html").write_text("<html>")
    with pytest.raises(InputError, match="holds something"):
        check(page_of_others)
    report = write_report(made, tmp_path / "report")
    (report.folder / "figures").mkdir(exist_ok=True)
    (report.folder / "figures" / "mine.txt").touch()
    with pytest.raises(InputError, match="holds something"):
        write_report(made, report.folder)
    assert (report.folder / "figures" / "mine.txt").exists()
    with pytest.raises(InputError, match="holds something"):
        check(tmp_path / "notes.txt")


def test_an_empty_folder_and_one_that_is_not_there_will_do(tmp_path: Path) -> None:
    made = made_up.evaluation({"a": 4}, mated=0, non_mated=0, galleries=(), by_size=False)
    write_report(made, tmp_path)
    assert MARK in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert write_report(made, tmp_path.with_name("new") / "deeper").page.is_file()


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    made = made_up.evaluation({"a": 4}, mated=0, non_mated=0, galleries=(), by_size=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be (read|written): Not a directory"):
        write_report(made, tmp_path / "file" / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_the_extra_it_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'pfstore\[report\]'"):
        write_report(made_up.evaluation({"a": 4}), tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"galleries": ()},
        {"non_mated": 0, "non_mated_searches": 0},
        {"mated": 0, "by_size": False},
        {"mated": 0, "non_mated": 0, "by_size": False},
        {"facts": {}, "settings": {}, "failures": 0},
        {"non_mated": 5, "non_mated_searches": 1},
    ],
)
def test_what_is_missing_leaves_no_hole(options: dict[str, Any]) -> None:
    made = made_up.evaluation({"only": 4}, **options)
    for one in (made, made_up.without_intervals(made)):
        words = Page(page(one, {})).words()
        assert not re.search(r"\bnan\b|\bNone\b|Undefined", words)
        assert "One method was evaluated on BTS3.1 face_incl_trt" in words
        assert ("Identification (1:N)" in words) == bool(one.methods[0].scored[0].identifications)


def test_facts_of_numpy_are_written(tmp_path: Path) -> None:
    made = made_up.evaluation({"a": 4}, mated=0, non_mated=0, galleries=(), by_size=False)
    made = replace(made, facts={"subjects": np.int64(12), "share": np.float64(0.25), "where": Path("x")})
    report = write_report(made, tmp_path / "report")
    facts = json.loads((report.folder / "results.json").read_text(encoding="utf-8"))["facts"]
    assert facts == {"subjects": 12, "share": 0.25, "where": "x"}


def test_an_evaluation_of_no_method_is_a_page() -> None:
    made = replace(made_up.evaluation({"a": 4}), methods=[])
    assert "No method was evaluated." in Page(page(made, {})).words()
