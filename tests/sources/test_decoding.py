"""Pages decoded in other processes: the same as here, in order, and no process outlives the one that reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pfstore.config import SourceConfig
from pfstore.errors import SourceError
from pfstore.sources import decoding
from pfstore.sources.decoding import PageDecoder
from pfstore.sources.encodings import Decoded, parse_encoding
from pfstore.sources.sql import SqlSource
from tests.sources.stores import MAPPING, execute, insert, read_all, rejects

JSON = parse_encoding("json")


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "ALONE", 0)


def pages(count: int, rows: int = 50) -> Iterator[tuple[int, list[str | None]]]:
    for page in range(count):
        values: list[str | None] = [json.dumps([page, row, 0.5]) for row in range(rows)]
        values[page % rows] = None
        values[(page + 1) % rows] = "[1, 2"
        yield page, values


def children() -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process().children()
    return found


def listed(decoded: Decoded) -> list[list[float] | None]:
    return [None if one is None else np.asarray(one).tolist() for one in decoded.features]


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("processes", [1, 3])
def test_pages_come_in_order_and_as_without_processes(processes: int) -> None:
    with closing(PageDecoder(JSON, processes)) as beside, closing(PageDecoder(JSON, 0)) as alone:
        found, expected = list(beside.decoded(pages(60))), list(alone.decoded(pages(60)))
        assert len(children()) == processes
    assert [page for page, _ in found] == list(range(60))
    assert [listed(one) for _, one in found] == [listed(one) for _, one in expected]
    assert [one.faults for _, one in found] == [one.faults for _, one in expected]
    assert children() == []


@pytest.mark.usefixtures("_at_once")
def test_a_store_gives_the_same_batches(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE faces (id INTEGER PRIMARY KEY, person TEXT, image TEXT, vec TEXT)")
    vectors = ["[1,2]", "[3,4]", None, "[1", "[1,2,3]", "[0,0]"]
    insert(
        sqlite_url,
        "faces",
        [{"id": i, "person": f"p{i // 7}", "image": str(i % 7 // 3), "vec": vectors[i % 6]} for i in range(3000)],
    )
    mapping = MAPPING | {"feature": {"column": "vec", "encoding": "json"}}
    batches = []
    for processes in (0, 2):
        with SqlSource(SourceConfig(url=sqlite_url, **mapping), "hr", processes) as source:
            batches.append(read_all(source, 500))
            assert bool(children()) == bool(processes)
    alone, beside = batches
    assert [one.features.fingerprints() for one in beside] == [one.features.fingerprints() for one in alone]
    assert rejects(beside) == rejects(alone)
    assert children() == []


def test_little_to_decode_starts_no_process() -> None:
    with closing(PageDecoder(JSON, 2)) as decoder:
        assert len(list(decoder.decoded(pages(decoding.ALONE // 50)))) == decoding.ALONE // 50
        assert children() == []
    assert PageDecoder(parse_encoding("float32-le"))._processes == 0


@pytest.mark.usefixtures("_at_once")
def test_what_another_process_would_get_slowly_is_decoded_here() -> None:
    values = [[1.0, 2.0], [3.0, 4.0]]
    with closing(PageDecoder(parse_encoding("array"), 1)) as decoder:
        ((_, decoded),) = decoder.decoded([("", values)])
    assert listed(decoded) == values


@pytest.mark.usefixtures("_at_once")
def test_a_killed_process_is_an_error_in_one_line() -> None:
    with closing(PageDecoder(JSON, 1)) as decoder:
        found = decoder.decoded(pages(10**6))
        next(found)
        for child in children():
            child.kill()
        with pytest.raises(SourceError, match=r"has ended \(signal 9\)") as caught:
            list(found)
    assert "\n" not in str(caught.value)


def test_no_process_outlives_the_one_that_reads(tmp_path: Path) -> None:
    script = tmp_path / "reading.py"
    script.write_text(
        "import itertools, psutil\n"
        "from pfstore.sources import decoding\n"
        "from pfstore.sources.encodings import parse_encoding\n"
        "decoding.ALONE = 0\n"
        "decoder = decoding.PageDecoder(parse_encoding('json'), 2)\n"
        "try:\n"
        "    for number, _ in decoder.decoded((n, ['[1, 2]'] * 1000) for n in itertools.count()):\n"
        "        if number == 10:\n"
        "            print(*(one.pid for one in psutil.Process().children()), flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    decoder.close()\n"
        "    raise SystemExit(130)\n"
    )
    for sent, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        started: Any = subprocess.Popen(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        helpers = [psutil.Process(int(pid)) for pid in started.stdout.readline().split()]
        assert len(helpers) == 2
        os.killpg(started.pid, sent)
        _, said = started.communicate(timeout=60)
        assert (started.returncode, said) == (code, "")
        ends = time.monotonic() + 30
        while time.monotonic() < ends and any(map(_is_alive, helpers)):
            time.sleep(0.05)
        assert not any(map(_is_alive, helpers))


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def test_a_helper_loads_nothing_heavy() -> None:
    code = "import sys, pfstore.sources.decoding; print(sorted({'torch', 'sqlalchemy', 'h5py'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(("processors", "started"), [(1, 0), (2, 0), (7, 0), (8, 3), (64, 4)])
@pytest.mark.usefixtures("_at_once")
def test_processes_are_started_where_enough_of_them_fit(
    processors: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_processors", lambda: processors)
    for encoding, expected in ((JSON, started), (parse_encoding("float32-le"), 0)):
        with closing(PageDecoder(encoding)) as decoder:
            for _ in decoder.decoded((page, values) for page, values in pages(3)):
                pass
            assert len(children()) == expected
