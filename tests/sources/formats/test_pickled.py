"""Pickled documents: what is read, and that nothing is ever run."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import operator
import os
import pickle
import random
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstore.errors import SourceError
from pfstore.sources import pickled
from tests.sources.formats.reading import DATA, at_most, numbers

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
FRAMES = sorted(DATA.glob("pandas-*.pkl"))

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=9)
    ),
    max_leaves=40,
)


def same(found: Any, expected: Any) -> bool:
    """Compare as pickle tests do: equal, and of the same types."""
    return repr(found) == repr(expected)


@given(VALUES, st.sampled_from(PROTOCOLS))
@settings(max_examples=300, deadline=None)
def test_plain_values_are_as_pickle_reads_them(value: Any, protocol: int) -> None:
    assert same(pickled.load(pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_tuple_may_hold_a_list_that_holds_it(protocol: int) -> None:
    for count in range(5):
        inner: list[Any] = []
        outer = (inner, *range(count))
        inner.append(outer)
        assert same(pickled.load(pickle.dumps([1, outer, 2], protocol)), [1, outer, 2])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_long_lists_of_floats_are_read_in_their_order(protocol: int) -> None:
    value = [{"embedding": [float(x) for x in range(30_000)] + [1, None, 2.5]}, [0.5] * 9, [-0.0]]
    assert same(pickled.load(pickle.dumps(value, protocol)), value)


def test_what_is_in_two_places_is_one_and_may_hold_itself() -> None:
    value: list[Any] = [["x"]]
    value += [value[0], value]
    found = pickled.load(pickle.dumps(value))
    assert found[0] is found[1]
    assert found[2] is found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        numbers(3),
        numbers(3).astype(">f8"),
        numbers(3).astype("f2")[::2],
        np.asfortranarray(numbers(3)),
        np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        np.array(5.5),
        np.empty((0, 4)),
        np.array([True, False]),
        np.array(["ab", "c"]),
        np.array([b"ab", b"c"]),
        np.array([None, "x", 1.5], dtype=object),
        np.asfortranarray(np.array([["a", 1, 2], ["b", None, 4]], dtype=object)),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_arrays_are_as_numpy_pickled_them(array: np.ndarray[Any, Any], protocol: int) -> None:
    data = pickle.dumps([array, array], protocol)
    for core in (b"numpy._core.", b"numpy.core."):
        # The module's older name is shorter, and most protocols write its length before it.
        renamed = data.replace(b"numpy._core.", core) if protocol < 4 else data
        first, second = pickled.load(renamed)
        assert first is second
        assert first.dtype == array.dtype
        np.testing.assert_array_equal(first, array)


def test_arrays_in_an_array_of_objects_are_read() -> None:
    array = np.empty(3, dtype=object)
    array[:] = [numbers(1)[0], None, "x"]
    found = pickled.load(pickle.dumps(array))
    np.testing.assert_array_equal(found[0], numbers(1)[0])
    assert found[1:].tolist() == [None, "x"]


def test_dates_are_whole_numbers() -> None:
    found = pickled.load(pickle.dumps(np.array(["1970-01-02"], dtype="M8[D]")))
    assert found.tolist() == [1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_scalars_are_python_s(protocol: int) -> None:
    value = [np.float32(1.5), np.float64(2.5), np.int8(-3), np.uint64(4), np.bool_(True), np.str_("x"), np.float16(1)]
    assert same(pickled.load(pickle.dumps(value, protocol)), [1.5, 2.5, -3, 4, True, "x", 1.0])


@pytest.mark.parametrize("protocol", range(3))
def test_pickles_of_python_2_are_read(protocol: int) -> None:
    found = pickled.read(DATA / f"python2-protocol{protocol}.pkl")
    assert [one.tolist() for one in found["encodings"]] == numbers(2).tolist()
    assert found["names"] == ["anna", "bért"]
    assert same(found["n"], [1, 2**40, 1.5, True, None, "\x00ÿ'\\n"])


@pytest.mark.parametrize("path", FRAMES, ids=lambda path: path.stem)
def test_frames_of_every_pandas_are_read(path: Path) -> None:
    frame = pickled.read(path)
    assert isinstance(frame, pickled.Frame)
    assert frame.labels[:3] == ["frame", "feature", "score"]
    assert np.array(frame.column("feature")).tolist() == numbers(3).tolist()
    assert frame.column("frame") == [0, 1, 2]
    assert frame.column("score") == [0.5, 0.75, 1.0]
    assert frame.column("path") == ["a/0.png", "a/1.png", "a/2.png"]
    assert frame.column("note") == [None, "x", 2]
    assert frame.column("kept") == [True, False, True]
    with pytest.raises(pickled.Refused, match="type that is not read"):
        frame.column("age")
    with pytest.raises(pickled.Refused, match="no column 'features'; it has 'frame', 'feature'"):
        frame.column("features")


def test_frames_of_all_three_pandas_are_there() -> None:
    assert {path.stem.removeprefix("pandas-")[0] for path in FRAMES} == {"1", "2", "3"}


def test_an_ordered_dict_is_a_dict() -> None:
    assert same(pickled.load(pickle.dumps(OrderedDict(a=1), 2)), {"a": 1})


# Nothing is run.


class Payload:
    """Pickled, an order to call something."""

    def __init__(self, action: Callable[..., Any], *arguments: Any) -> None:
        self.action, self.arguments = action, arguments

    def __call__(self) -> None:
        """Do nothing: pickle asks whether it could."""

    def __reduce__(self) -> Any:
        return self.action, self.arguments


def touching(target: Path) -> list[Payload]:
    """Return orders to make a file, each in another way."""
    command, script = f"touch {target}", f"__import__('pathlib').Path({str(target)!r}).touch()"
    return [
        Payload(os.system, command),
        Payload(eval, script),
        Payload(exec, script),
        Payload(Path.touch, target),
        Payload(functools.partial(os.system, command)),
        Payload(functools.reduce, Payload(operator.attrgetter("__call__"), os.system), [command], 0),
        Payload(list, map(os.system, [command])),
        Payload(operator.methodcaller("touch"), target),
        Payload(Payload(operator.attrgetter("touch"), target)),
        Payload(Payload(getattr, target, "touch")),
        Payload(np.fromfile, str(target)),
        Payload(np.lib.format.open_memmap, str(target), "w+", None, (1,)),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_is_never_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made"
    effective = 0
    for order in touching(target):
        for value in (order, [1.0, order], {"feature": order}, np.array([order], dtype=object)):
            data = pickle.dumps(value, protocol)
            with pytest.raises(pickled.Refused):
                pickled.load(data)
            assert not target.exists()
            with contextlib.suppress(TypeError, OSError):
                pickle.loads(data)
            effective += target.exists()
            target.unlink(missing_ok=True)
    assert effective >= 30, "the orders would do nothing if they were followed"


class Extension:
    """An object with a code of copyreg's."""


def test_extensions_are_not_handed_out() -> None:
    code = 0xEE
    copyreg.add_extension(__name__, "Extension", code)
    try:
        data = pickle.dumps(Extension, 2)
        assert data[2] == 0x82
        assert pickle.loads(data) is Extension  # and is now in the cache, from which no unpickler asks for it
        with pytest.raises(pickled.Refused, match="code of an extension"):
            pickled.load(data)
    finally:
        copyreg.remove_extension(__name__, "Extension", code)


REFUSED = [
    (b"\x80\x02Pid\n.", "persistent id"),
    (b"\x80\x04\x8c\x02idQ.", "persistent id"),
    (b"(cos\nsystem\nS'x'\no.", "asks for 'os.system'"),
    (b"(S'x'\nios\nsystem\n.", "class of Python 2"),
    (b"\x80\x04\x8c\x06pandas\x8c\x09DataFrame\x93)}\x92.", "made with keywords"),
    (b"\x80\x04\x8c\x06pandas\x8c\x0bread_pickle\x93.", "asks for 'pandas.read_pickle'"),
    (b"\x80\x04\x8c\x06pandas\x8c\x09io.common\x93.", "asks for 'pandas.io.common'"),
    (b"\x80\x04\x8c\x06pandas\x8c\x09DataFrame\x93}\x8c\x04make\x8c\x01xsb.", "sets the state of a Name"),
    (b"\x80\x04]}b.", "sets the state of a list"),
    (b"\x80\x04\x8c\x01x)R.", "calls a str"),
    (b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93K\x01\x85R.", "makes something that it may only name"),
    (b"cfunctools\npartial\ncnumpy\nndarray\n\x85R.", "calls functools.partial"),
    (b"cnumpy\ndtype\nX\x02\x00\x00\x00V8\x85R.", "something else than numbers"),
    (b"c_codecs\nencode\nX\x01\x00\x00\x00xX\x03\x00\x00\x00zip\x86R.", "encodes text as 'zip'"),
    (b"\x80\x04\x8f.", "a set"),
    (b"\x80\x05\x97.", "a buffer outside"),
    (b"}]]s.", "a key of type list"),
    (b"}\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01Ns.", "a key of type int"),
    (b"\x8b\x02\x00\x00\x00\x00\x01.", "a whole number of more than 255 bytes"),
    (b"cpandas\nNA\n(" + b"N" * 33 + b"tR.", "calls pandas.NA with 33 values"),
    (b"cpandas." + b"x" * 200 + b"\nNA\n.", "asks for 'pandas.xxx"),
]


@pytest.mark.parametrize(("data", "says"), REFUSED)
def test_what_is_not_done_is_refused_by_name(data: bytes, says: str) -> None:
    with pytest.raises(pickled.Refused, match=says.replace(".", r"\.")):
        pickled.load(data)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"garbage", b"\x80\x04", b".", b"]e.", b"h\x00.", b"\x80\x04N", b"(1.", b"I1_x\n.",
        b"S'a\n.", b"S'\n.", b"Sa'\n.", b"S'a\"\n.", b"S'\\'\n.", b"S'\\q'\n.", b"S'\\400'\n.", b"S'\\x4'\n.",
        b"Np-1\n.", b"Np4294967296\n.",
    ],
)  # fmt: skip
def test_what_is_no_pickle_is_damaged(data: bytes) -> None:
    with pytest.raises(pickled.Damaged):
        pickled.load(data)


def test_text_that_python_could_not_hold_is_damaged() -> None:
    data = pickle.dumps(np.array(["ab"]))
    assert pickled.load(data).tolist() == ["ab"]
    with pytest.raises(pickled.Damaged, match="damaged text"):
        pickled.load(data.replace(b"a\0\0\0", b"a\0\0\x7f"))


def test_slices_within_slices_are_damaged() -> None:
    # Enough of them, and Python's own memory for calls would be full when they are freed.
    with pytest.raises(pickled.Damaged, match="a damaged slice"):
        pickled.load(b"cbuiltins\nslice\nq\x00h\x00N\x85R\x85R.")


@pytest.mark.parametrize("path", [*FRAMES, *DATA.glob("python2-*")], ids=lambda path: path.stem)
def test_damage_is_never_another_error(path: Path) -> None:
    whole, generator = path.read_bytes(), random.Random(path.stem)
    read = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        with contextlib.suppress(pickled.Unreadable):
            found = pickled.load(bytes(data))
            if isinstance(found, pickled.Frame):
                found.column("feature")
            read += 1
    assert read, "damage in a value is no damage in the pickle"
    for cut in range(0, len(whole), 7):
        with pytest.raises(pickled.Unreadable):
            pickled.load(whole[:cut])


# Memory and time stay bounded.


def u4(number: int) -> bytes:
    return struct.pack("<I", number)


def text(value: str) -> bytes:
    return b"X" + u4(len(value)) + value.encode()


def doubled(empty: bytes, pair: bytes, times: int) -> bytes:
    """Return what holds one thing twice, and that another twice, and so on."""
    return empty + b"q\x10" + (b"0" + pair + b"q\x10") * times


def array(shape: bytes, kind: str, values: bytes) -> bytes:
    return (
        b"cnumpy._core.multiarray\n_reconstruct\n)R(K\x01"
        + shape
        + b"cnumpy\ndtype\n"
        + text(kind)
        + b"\x85R\x89"
        + values
        + b"tb"
    )


LISTS = doubled(b"]", b"](h\x10h\x10e", 24)
ENCODE = b"c_codecs\nencode\nq\x00" + text("x" * 2**16) + text("latin1") + b"\x86q\x01"
OBJECTS = b"cnumpy._core.multiarray\n_reconstruct\nq\x00cnumpy\ndtype\n" + text("O8") + b"\x85Rq\x01](" + b"N" * 2**16
OBJECTS += b"eq\x02"

BOMBS = {
    "lengths": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "negative lengths": b"\x8b" + struct.pack("<i", -5) + b".",
    "arrays of bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".",
    "shapes": pickle.dumps(np.arange(3), 2).replace(b"K\x03\x85", b"J" + struct.pack("<i", 2**31 - 1) + b"\x85"),
    "lists": b"(" + b"]" * 2**20 + b"l.",
    "memos": b"N" + b"\x94" * 2**20 + b".",
    "the same text over and over": ENCODE + b"h\x00h\x01R" * 2**12 + b".",
    "the same objects over and over": OBJECTS + b"h\x00)R(K\x01J\x00\x00\x01\x00\x85h\x01\x89h\x02tb" * 2**11 + b".",
    "lists as a type": b"cnumpy\ndtype\n" + LISTS + b"\x85R.",
    "lists as an encoding": b"c_codecs\nencode\n" + text("x") + LISTS + b"\x86R.",
    "lists as a shape": array(b"}K\x02" + LISTS + b"s", "u1", b"C\x01a") + b".",
    "long names": text("pandas." + "x" * 10**5) + b"q\x00" + text("NA") + b"q\x01" + b"h\x00h\x01\x93" * 10**4 + b".",
    "arrays in arrays": pickle.dumps(
        functools.reduce(lambda inner, _: np.array([None, inner], dtype=object), range(3), np.array([None]))
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_memory_is_not_taken_for_nothing(name: str) -> None:
    with at_most(64), pytest.raises(pickled.Unreadable):
        pickled.load(BOMBS[name])


def test_the_blocks_of_a_frame_are_not_copied() -> None:
    block = b"}" + text("values") + b"Ns" + text("mgr_locs") + b"Nsq\x02"
    state = b"}" + text("blocks") + b"](" + b"h\x02" * 10**5 + b"es" + text("axes") + b"Nsq\x03"
    state = block + state + b"(NNN}" + text("0.14.1") + b"h\x03stq\x05"
    with at_most(32):
        pickled.load(state + b"cpandas\nBlockManager\nq\x06" + b"h\x06)Rh\x05b" * 100 + b".")


MANY = b"](" + b"N" * 300_000 + b"eq\x00"
SLOW = {
    "escapes": b"S'" + b"\\123" * 18 + b"x\n.",
    "numbers with one hash": b"N" + b"".join(b"p%d\n" % (k * (2**61 - 1)) for k in range(1, 40_000)) + b".",
    "labels": MANY + b"cpandas\n_new_Index\nNh\x00\x86" + b"R0cpandas\n_new_Index\nNh\x00\x86" * 2000 + b".",
    "members": MANY + b"cpandas\nStringArray\nq\x01" + b"h\x01)Rh\x00b" * 3000 + b".",
    "hashes": b"(" + doubled(b")", b"h\x10h\x10\x86", 31) + b"NNNNtq\x00cpyarrow.lib\n_restore_array\nh\x00\x85R.",
    "text for one number": b"cnumpy.core.multiarray\nscalar\nq\x02cnumpy\ndtype\n"
    + text("u1")
    + b"\x85Rq\x01"
    + text("x" * 2**20)
    + b"q\x00"
    + b"h\x02h\x01h\x00\x86R" * 10**5
    + b".",
}


@pytest.mark.parametrize("name", SLOW)
def test_time_is_not_taken_for_nothing(name: str) -> None:
    started = time.process_time()
    with contextlib.suppress(pickled.Unreadable):
        pickled.load(SLOW[name])
    assert time.process_time() - started < 2, "a tenth of a second is usual"


def test_a_block_that_is_there_many_times_is_looked_at_once() -> None:
    places = array(b"J" + u4(120_000) + b"\x85", "i8", b"B" + u4(960_000) + b"\xff" * 960_000)
    block = b"cpandas._libs.internals\n_unpickle_block\nN" + places + b"\x86Rq\x100"
    labels = array(b"K\x01\x85", "O8", b"]" + text("feature") + b"a")
    manager = block + b"cpandas\nBlockManager\n(" + b"h\x10" * 2000 + b"t]" + labels + b"a\x86R"
    frame = pickled.load(b"cpandas\nDataFrame\n)R}" + text("_mgr") + manager + b"sb.")
    started = time.process_time()
    with pytest.raises(pickled.Damaged):
        frame.column("feature")
    assert time.process_time() - started < 1


def test_a_large_number_for_the_memo_takes_no_memory() -> None:
    with at_most(1):
        assert pickled.load(b"Nr" + u4(2**32 - 1) + b".") is None


def test_nesting_has_no_end_and_does_no_harm() -> None:
    found = pickled.load(b"(" + b"]" * 100_000 + b"a" * 99_999 + b".")
    assert len(found) == 1
    assert sys.getrecursionlimit() < 100_000


def test_the_largest_file_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps("x" * 1000))
    assert pickled.read(path) == "x" * 1000
    monkeypatch.setattr(pickled, "MOST_BYTES", 1000)
    with pytest.raises(pickled.Refused, match="has 1,018 bytes, of which at most 1,000 are read"):
        pickled.read(path)
    with pytest.raises(SourceError, match="no such file"):
        pickled.read(tmp_path / "y.pkl")
