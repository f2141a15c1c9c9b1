"""A mapping for pfstore.toml made of what an inspection found, with the evidence beside every choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pfstore.sources import keys
from pfstore.sources.inspection import toml
from pfstore.sources.inspection.attributes import Attribute, Join
from pfstore.sources.inspection.inspecting import Finding
from pfstore.sources.inspection.roles import Deletion, is_named_change
from pfstore.sources.inspection.walking import MOST_COUNTED
from pfstore.text import visible

Quote = Callable[[str], str]
"""Writes an identifier as the database's SQL has it."""


@dataclass(frozen=True)
class Line:
    """One key of a mapping. proposed: False where the user has to decide; then it is written as a comment."""

    key: str
    value: Any
    because: str = ""
    proposed: bool = True


@dataclass(frozen=True)
class Proposal:
    """The keys of a source, and its causes of exclusion."""

    lines: Sequence[Line]
    exclude: Sequence[Line]

    def as_dict(self) -> dict[str, Any]:
        """Return the proposed keys as pfstore.toml would give them."""
        found = {line.key: line.value for line in self.lines if line.proposed}
        causes = {line.key: line.value for line in self.exclude if line.proposed}
        return found | ({"exclude": causes} if causes else {})


def propose(finding: Finding, quote: Quote) -> Proposal:
    """Return the mapping that reads what was found; joined tables make it a query."""
    names = _Names(finding, quote)
    lines = [*_from(finding, names), *_subject(finding, names), *_medium(finding, names)]
    feature = {"column": finding.column, "encoding": finding.reading.encoding}
    lines += [Line("feature", feature), *_quality(finding), _extractor(finding)]
    lines += _changes(finding)
    return Proposal(lines, [_exclusion(one, names, quote) for one in finding.deletions if names.has(one.attribute)])


def to_toml(mapping: Proposal, name: str, store: Mapping[str, str]) -> str:
    """Return the mapping as a source of pfstore.toml. store: the url as it may be shown."""
    body = [_written(line) for line in mapping.lines]
    tail = ["", f"[sources.{toml.key(name)}.exclude]", *map(_written, mapping.exclude)] if mapping.exclude else []
    if tail and not any(line.proposed for line in mapping.exclude):
        tail[1] = f"# {tail[1]}"
    return "\n".join([*toml.head(name, store), *body, *tail])


class _Names:
    """Which columns a mapping can name: those of the features' table, and of the tables that lead to the subject."""

    def __init__(self, finding: Finding, quote: Quote) -> None:
        self._quote = quote
        self._finding = finding
        self.path: tuple[Join, ...] = finding.subject.columns[0].path if finding.subject else ()

    def has(self, one: Attribute) -> bool:
        """Tell whether the query joins the table of a column."""
        return one.path == self.path[: len(one.path)]

    def of(self, one: Attribute) -> str:
        """Return a column's name in the table or in the query's result."""
        if not one.path:
            return one.column
        taken = {name.lower() for name in self._finding.table.columns}
        taken |= {name.lower() for step in self.path[: len(one.path) - 1] for name in step.table.columns}
        free = (name for name in (one.column, f"{one.table.name}_{one.column}") if name.lower() not in taken)
        return next(free, f"{one.column}_of_j{len(one.path)}")

    def query(self, columns: Sequence[Attribute]) -> str:
        """Return the SELECT that joins what the mapping needs."""
        joined = dict.fromkeys(one for one in columns if one.path)
        selected = ["f.*", *(f"j{len(one.path)}.{self._named(one)}" for one in joined)]
        steps = [
            f"LEFT JOIN {self._table(step.table)} j{number}"
            f" ON j{number}.{self._quote(step.to)} = {'f' if number == 1 else f'j{number - 1}'}.{self._quote(step.of)}"
            for number, step in enumerate(self.path, 1)
        ]
        return "\n".join([f"SELECT {', '.join(selected)}", f"FROM {self._table(self._finding.table)} f", *steps])

    def _named(self, one: Attribute) -> str:
        name = self.of(one)
        return self._quote(one.column) + (f" AS {self._quote(name)}" if name != one.column else "")

    def _table(self, table: Any) -> str:
        return ".".join(self._quote(part) for part in (table.schema, table.name) if part)


def _from(finding: Finding, names: _Names) -> Iterator[Line]:
    rows = finding.statistics.rows
    size = f"{rows:,} rows" if rows <= MOST_COUNTED else f"more than {MOST_COUNTED:,} rows"
    if not names.path:
        yield Line("table", finding.table.label, size)
        return
    beside = [finding.medium, *(one.attribute for one in finding.deletions)]
    needed = [*(finding.subject.columns if finding.subject else ()), *(one for one in beside if one and names.has(one))]
    yield Line("query", names.query(needed), size)
    if finding.table.key:
        yield Line("row", _one_or_all(finding.table.key))


def _subject(finding: Finding, names: _Names) -> Iterator[Line]:
    found = finding.subject
    if found is None:
        yield Line("subject", "…", "no column was found whose values persons share: name it", proposed=False)
        return
    likeness = found.likeness
    because = (
        f"features that share it: cosine {likeness.within:.2f} on average, others {likeness.between:.2f};"
        f" the more alike in {likeness.area:.1%} of pairs"
    )
    missing = max(one.missing for one in found.columns)
    because += f"; {missing:.0%} have none" if missing >= 0.005 else ""
    yield Line("subject", _one_or_all([names.of(one) for one in found.columns]), because)


def _medium(finding: Finding, names: _Names) -> Iterator[Line]:
    if finding.medium is not None and names.has(finding.medium):
        yield Line("medium", names.of(finding.medium), f"{finding.medium.groups:,} in the sample, each of one subject")


def _quality(finding: Finding) -> Iterator[Line]:
    if finding.quality is None:
        return
    found = finding.quality
    because = f"rank correlation {found.correlation:+.2f} with how alike a feature is to the subject's others"
    if found.correlation < 0:
        because += ": lower is better, so no minimum helps"
    yield Line("quality", found.attribute.column, because, found.correlation > 0)


def _extractor(finding: Finding) -> Line:
    if finding.model is None:
        because = "name what made the features: two extractors of one dimension cannot be told apart by their numbers"
        return Line("extractor", f"unknown-{finding.reading.dimension}", because)
    counts = Counter(map(_text, finding.model.present)).most_common()
    others = ", ".join(f"{name} ({count:,})" for name, count in counts[1:6])
    because = f"mixed with {others} in the sample" if others else "the only one in the sample"
    return Line("extractor", {"column": finding.model.column, "value": counts[0][0]}, because)


def _changes(finding: Finding) -> Iterator[Line]:
    for one in [change for change in finding.changes if is_named_change(change)][:1]:
        because = "named so; safe only if every change of a feature or of its subject touches it"
        yield Line("changed", one.column, because, proposed=False)


def _exclusion(one: Deletion, names: _Names, quote: Quote) -> Line:
    column = quote(names.of(one.attribute))
    if one.present:
        condition = f"{column} IS NOT NULL"
    elif isinstance(one.value, bool):
        condition = column if one.value else f"NOT {column}"
    else:
        condition = f"{column} = {one.value}"
    because = f"{one.share:.1%} of the sample"
    because += "" if one.certain else "; only its values look so"
    cause = visible(f"{one.attribute.label} is {'set' if one.present else one.value}")
    return Line(cause, condition, because, one.certain)


def _text(value: Any) -> str:
    return keys.part_text(value)


def _one_or_all(names: Sequence[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


def _written(line: Line) -> str:
    comment = [toml.comment(line.because, "")] if line.because else []
    text = f"{toml.key(line.key)} = {toml.value(line.value)}"
    return "\n".join([*comment, text if line.proposed else "# " + text.replace("\n", "\n# ")])
