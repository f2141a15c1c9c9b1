"""What stands in for pandas, of versions 1 to 3, and for the columns that it keeps with pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np

from pfstore.sources.pickled.standins import Damaged, Name, Opaque, Refused, Standin, Unreadable, not_made


@dataclass(frozen=True)
class Block(Standin):
    """Some columns of one type.

    values: [columns, rows], or what a column of an extension type keeps. places: [columns], their numbers in the frame.
    """

    values: Any
    places: Any

    @property
    def columns(self) -> int:
        """How many columns these are."""
        return len(self.places) if isinstance(self.places, np.ndarray) else len(_range(self.places))

    def column(self, place: int) -> Any:
        """Return the values of a column of the frame, None where they are not in this block."""
        places = self.places.tolist() if isinstance(self.places, np.ndarray) else _range(self.places)
        if place not in places:
            return None
        # Extension types have one column in a block, without a second dimension.
        plain = isinstance(self.values, np.ndarray) and self.values.ndim == 2
        return self.values[places.index(place)] if plain else self.values


@dataclass(frozen=True)
class Manager(Standin):
    """Stands in for pandas' BlockManager: the blocks, or dicts of their members, and the labels of columns and rows."""

    blocks: Sequence[Block | Mapping[str, Any]] = ()
    axes: Sequence[Any] = ()

    def build(self, state: Any, /) -> Manager:
        """Return the manager of a state as pandas before 1.3 wrote it."""
        state = state[3]["0.14.1"]
        return Manager(state["blocks"], state["axes"])

    def column(self, place: int, columns: int) -> Any:
        """Return the values of the column of this number, of so many. Raises Damaged where no block has them."""
        for one in self.blocks:
            block = one if isinstance(one, Block) else Block(one["values"], one["mgr_locs"])
            columns -= block.columns
            if columns < 0:  # one block may be there any number of times
                break
            if (found := block.column(place)) is not None:
                return found
        raise Damaged("holds a damaged frame")


@dataclass(frozen=True)
class Frame(Standin):
    """Stands in for a pandas.DataFrame: its columns, of which those with text for a label can be had."""

    manager: Manager = Manager()

    @property
    def labels(self) -> list[str | None]:
        """The columns' labels in their order, None where one is no text. Raises Unreadable."""
        with _whole():
            return [one if isinstance(one, str) else None for one in _values(self.manager.axes[0])]

    def column(self, label: str) -> Sequence[Any]:
        """Return the values of a column, [rows]. Raises Unreadable where it is missing or of another type."""
        labels = self.labels
        if label not in labels:
            shown = ", ".join(repr(one) for one in labels[:8] if one is not None)
            raise Refused(f"has no column {label!r}; it has {shown or 'none'}"[:200])
        with _whole():
            return _values(self.manager.column(labels.index(label), len(labels)))

    def build(self, state: Any, /) -> Frame:
        """Return the frame of a state; before 1.1 pandas called the manager _data."""
        manager = state["_mgr"] if "_mgr" in state else state["_data"]
        if not isinstance(manager, Manager):
            raise Damaged("holds a damaged frame")
        return Frame(manager)


@contextmanager
def _whole() -> Iterator[None]:
    """Say of a frame whose parts do not fit each other that it is damaged."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        raise Damaged(f"holds a damaged frame ({type(error).__name__})") from None


class Text(Standin):
    """Stands in for a StringArray: an array of text objects that is one of the members of its state."""

    __slots__ = ()

    def __init__(self, *_: object) -> None:
        pass

    def build(self, state: Any, /) -> Any:
        """Return the text as it lies in the state, whichever pandas wrote it."""
        members = islice(state.values() if isinstance(state, dict) else state, _MOST_MEMBERS)
        return next((one for one in members if isinstance(one, np.ndarray | ArrowText)), Opaque())


@dataclass(frozen=True)
class ArrowText(Standin):
    """Text as Arrow keeps it: the bytes of all, and where each one ends. width: bytes of an offset."""

    count: int
    width: int
    offsets: bytes
    content: bytes

    def values(self) -> list[Any]:
        """Return the text [rows]."""
        ends = np.frombuffer(self.offsets, f"<i{self.width}", count=self.count + 1).tolist()
        if ends != sorted(ends):
            raise Damaged("holds damaged text")
        return [self.content[first:last].decode() for first, last in pairwise(ends)]


class Partial(Standin):
    """Stands in for functools.partial of the one function for which pandas 1.3 uses it."""

    __slots__ = ("name",)

    def __init__(self, name: Any) -> None:
        if not isinstance(name, Name) or name.make is not _block:
            raise Refused("calls functools.partial")
        self.name = name

    def build(self, _state: Any, /) -> Name:
        """Return the function itself: the arguments that it is given here say nothing new."""
        return self.name


def _index(_: Any, state: Any) -> Any:
    if not isinstance(state, dict):
        raise Damaged("holds damaged labels")
    if "data" in state:
        return state["data"]
    if "stop" in state:
        return slice(state["start"], state["stop"], state["step"])
    return Opaque()  # several levels of labels


def _block(values: Any, places: Any, *_: object) -> Block:
    return Block(values, places)


def _slice(*arguments: Any) -> slice:
    # Python frees one inside of another by recursion, without an end to it.
    if not all(one is None or isinstance(one, int) for one in arguments):
        raise Damaged("holds a damaged slice")
    return slice(*arguments)


def _dict() -> dict[Any, Any]:
    return {}


def _arrow(state: Any) -> Any:
    kind, count, _, first, buffers = state[:5]
    widths = {"string": 4, "large_string": 8}
    # The hash of tuples in tuples may take any time.
    if not isinstance(kind, str) or kind not in widths or first != 0 or len(buffers) != 3 or buffers[0] is not None:
        return Opaque()
    return ArrowText(count, widths[kind], buffers[1], buffers[2])


def _itself(value: Any) -> Any:
    return value


def _range(places: slice) -> range:
    return range(places.start or 0, places.stop, places.step or 1)


def _values(found: Any) -> list[Any]:
    if isinstance(found, ArrowText):
        return found.values()
    if isinstance(found, slice):
        return list(_range(found)[:_MOST_LABELS])
    if isinstance(found, np.ndarray) and found.ndim == 1:
        return list(found.tolist())
    raise Refused("keeps its columns or their labels in a type that is not read")


_MOST_LABELS = 2**20
_MOST_MEMBERS = 8

_INDICES = """
    Index RangeIndex MultiIndex DatetimeIndex TimedeltaIndex PeriodIndex IntervalIndex CategoricalIndex
    Int64Index UInt64Index Float64Index
""".split()  # noqa: SIM905
"""Types of labels, which a pickle names when it makes some."""

_UNSEEN = """
    Categorical CategoricalDtype DatetimeArray DatetimeTZDtype TimedeltaArray PeriodArray PeriodDtype
    IntervalArray IntervalDtype __pyx_unpickle_IntervalMixin IntegerArray FloatingArray BooleanArray BooleanDtype
    Int8Dtype Int16Dtype Int32Dtype Int64Dtype UInt8Dtype UInt16Dtype UInt32Dtype UInt64Dtype
    Float32Dtype Float64Dtype StringDtype ArrowDtype ArrowExtensionArray NA
    _new_DatetimeIndex _new_PeriodIndex Day Hour Minute Second
    _unpickle_timestamp _timedelta_unpickle _nat_unpickle __nat_unpickle
""".split()  # noqa: SIM905
"""What columns may hold that have nothing to do with features."""

_PANDAS: dict[str, Callable[..., Any]] = {
    "DataFrame": Frame,
    "BlockManager": Manager,
    "_unpickle_block": _block,
    "new_block": _block,
    "_new_Index": _index,
    "StringArray": Text,
    "ArrowStringArray": Text,
    "__pyx_unpickle_NDArrayBacked": lambda name, *_: name.make(),
    **dict.fromkeys(_INDICES, not_made),
    **dict.fromkeys(_UNSEEN, Opaque),
}
"""By name alone, as the modules in which pandas keeps them have changed with every version."""

NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("functools", "partial"): Partial,
    ("pyarrow.lib", "_restore_array"): _arrow,
    ("pyarrow.lib", "py_buffer"): _itself,
    ("pyarrow.lib", "type_for_alias"): _itself,
    **{("datetime", name): Opaque for name in ("date", "datetime", "time", "timedelta", "timezone")},
    **{("pathlib", name): Opaque for name in ("Path", "PurePosixPath", "PosixPath", "WindowsPath", "PureWindowsPath")},
    **{("pathlib._local", name): Opaque for name in ("Path", "PurePosixPath", "PosixPath", "WindowsPath")},
    ("pytz", "_UTC"): Opaque,
    ("pytz", "_p"): Opaque,
    ("uuid", "UUID"): Opaque,
    ("decimal", "Decimal"): Opaque,
    ("collections", "OrderedDict"): _dict,
    ("builtins", "slice"): _slice,
    ("__builtin__", "slice"): _slice,
}


def find(module: str, name: str) -> Callable[..., Any] | None:
    """Return what stands in for a name of pandas or of what it keeps in its columns; None where nothing does."""
    if module == "pandas" or module.startswith("pandas."):
        return _PANDAS.get(name)
    return NAMES.get((module, name))
