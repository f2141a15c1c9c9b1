"""What an inspection found, in JSON's types."""

from __future__ import annotations

from math import isnan
from typing import Any

from pfstore.sources import keys
from pfstore.sources.inspection.attributes import Attribute
from pfstore.sources.inspection.inspecting import Finding, Inspection
from pfstore.sources.inspection.mapping import propose
from pfstore.sources.inspection.readings import Reading
from pfstore.sources.inspection.subjects import Subject
from pfstore.sources.inspection.walking import MOST_COUNTED
from pfstore.sources.presets import all_presets


def described(inspection: Inspection) -> dict[str, Any]:
    """Return the inspection as `--json` prints it; no value of any row is in it but the names of models."""
    return {
        "engine": inspection.engine,
        "tables": inspection.tables,
        "presets": [{"name": name, "title": all_presets()[name].title} for name in inspection.presets],
        "findings": [_finding(one, inspection) for one in inspection.findings],
        "rejected": inspection.rejected,
        "unread": inspection.unread,
    }


def _finding(finding: Finding, inspection: Inspection) -> dict[str, Any]:
    counted = finding.statistics
    return {
        "table": finding.table.label,
        "column": finding.column,
        **_reading(finding.reading),
        "rows": counted.rows if counted.rows <= MOST_COUNTED else None,
        "sampled": {
            "rows": counted.sampled,
            "empty": counted.empty,
            "undecodable": counted.undecodable,
            "duplicates": counted.duplicates,
            "dimensions": {str(size): count for size, count in counted.dimensions.items()},
        },
        "subjects": counted.subjects,
        "features_per_subject": counted.per_subject,
        "subject": finding.subject and _subject(finding.subject),
        "medium": finding.medium and finding.medium.label,
        "model": finding.model and _model(finding.model),
        "quality": finding.quality
        and {"column": finding.quality.attribute.label, "correlation": round(finding.quality.correlation, 3)},
        "changes": [one.label for one in finding.changes],
        "deletions": [{"column": one.attribute.label, "share": round(one.share, 4)} for one in finding.deletions],
        "mapping": propose(finding, inspection.quote).as_dict(),
        "other_readings": [_reading(one) for one in finding.others],
    }


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        "encoding": reading.encoding,
        "dimension": reading.dimension,
        "norms": None if any(map(isnan, reading.norms)) else [round(norm, 4) for norm in reading.norms],
        "score": round(reading.score, 3),
        "evidence": reading.evidence,
        "against": list(reading.against),
    }


def _subject(subject: Subject) -> dict[str, Any]:
    likeness = subject.likeness
    return {
        "columns": [one.label for one in subject.columns],
        "within": round(likeness.within, 4),
        "between": round(likeness.between, 4),
        "area": round(likeness.area, 4),
        "pairs": likeness.pairs,
        "rejected": subject.rejected,
    }


def _model(model: Attribute) -> dict[str, Any]:
    return {"column": model.label, "values": sorted(set(map(keys.part_text, model.present)))}
