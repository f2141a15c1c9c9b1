"""What an inspection found as text to paste into pfstore.toml: a mapping, with all the rest in comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pfstore.sources.inspection import toml
from pfstore.sources.inspection.inspecting import Finding, Inspection
from pfstore.sources.inspection.mapping import propose, to_toml
from pfstore.sources.inspection.walking import MOST_COUNTED
from pfstore.sources.presets import Preset, all_presets

_MOST_SHOWN = 8


def report(inspection: Inspection, name: str, store: Mapping[str, str]) -> str:
    """Return valid TOML: the preset that fits or the best finding as a source, everything else as comments.

    name: the source's. store: the url as it may be shown.
    """
    presets = [all_presets()[one] for one in inspection.presets]
    parts = [_preset(preset, name, store) for preset in presets[:1]]
    parts += [toml.comment(f'it also fits {preset.title}: preset = "{preset.name}"') for preset in presets[1:]]
    for number, finding in enumerate(inspection.findings):
        if number == 0 and not presets:
            parts.append(_head(finding) + "\n" + to_toml(propose(finding, inspection.quote), name, store))
            parts.append("\n".join(map(toml.comment, _weighed(finding))))
        else:
            parts.append("\n".join(map(toml.comment, _beside(finding))))
    parts.append("\n".join(map(toml.comment, _left(inspection))))
    return "\n\n".join(part for part in parts if part)


def _preset(preset: Preset, name: str, store: Mapping[str, str]) -> str:
    lines = [f"This is {preset.title}.", f"Change mark: {preset.change_mark}", *preset.notes]
    return "\n".join([*map(toml.comment, lines), *toml.head(name, store), f'preset = "{preset.name}"'])


def _head(finding: Finding) -> str:
    counted, reading = finding.statistics, finding.reading
    lines = [f"{finding.table.label}.{finding.column} looks like features: {reading.evidence}."]
    if counted.per_subject:
        low, middle, high = counted.per_subject
        within = f" in the first {MOST_COUNTED:,} rows" if counted.rows > MOST_COUNTED else ""
        lines.append(
            f"{counted.subjects:,} subjects{within}, of {low:,} … {middle:,} … {high:,} features (5 %, median, 95 %)."
        )
    lines.append(
        f"Of {counted.sampled:,} sampled rows {counted.undecodable:,} are undecodable, {counted.empty:,} empty"
        f" and {counted.duplicates:,} repeat a feature."
    )
    if len(counted.dimensions) > 1:
        mixed = ", ".join(f"{size:,} ({count:,})" for size, count in counted.dimensions.items())
        lines.append(f"Mixed dimensions: {mixed}; only {reading.dimension:,} is read.")
    return "\n".join(map(toml.comment, lines))


def _weighed(finding: Finding) -> Iterator[str]:
    # Of readings that differ in the offset alone, one is enough to see.
    leaves = {one.encoding.partition("@")[0]: one for one in reversed(finding.others) if one.decoded}
    others = list(reversed(leaves.values()))[:_MOST_SHOWN]
    if others:
        yield "Other readings of the column, not believed:"
    yield from (f"  {one.encoding}: {'; '.join(one.against) or 'as good as the one above'}" for one in others)
    rejected = list(finding.subject.rejected.items())[:_MOST_SHOWN] if finding.subject else []
    if rejected:
        yield "Other columns, not the subject:"
    yield from (f"  {column}: {why}" for column, why in rejected)


def _beside(finding: Finding) -> Iterator[str]:
    whose = ", ".join(one.label for one in finding.subject.columns) if finding.subject else "nothing says whose"
    table, reading = finding.table.label, finding.reading
    yield f"By content: {table}.{finding.column} is {reading.encoding}, {reading.evidence}"
    yield f"  subject: {whose}; a mapping of it: --table {table}"


def _left(inspection: Inspection) -> Iterator[str]:
    shown = list(inspection.rejected.items())[:_MOST_SHOWN]
    if shown:
        yield "Columns that do not look like features:"
    yield from (f"  {column}: {why}" for column, why in shown)
    if len(inspection.rejected) > len(shown):
        yield f"  … and {len(inspection.rejected) - len(shown):,} more; --json lists all"
    if inspection.unread:
        yield "Not read:"
    yield from (f"  {table}: {why}" for table, why in inspection.unread.items())
