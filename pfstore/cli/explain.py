"""`pfstore explain`: why a template is as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pfstore.cli.app import App, Command, plural

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pfstore.jobs.explaining import ExplainedTemplate


@click.command(cls=Command)
@click.argument("gallery")
@click.argument("subject")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="Lines in each table.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it: PNG, SVG, PDF.")
@click.option("--version", type=int, help="Another version than the active one.")
@click.pass_obj
def explain(app: App, gallery: str, subject: str, top: int, plot: Path | None, version: int | None) -> None:
    """Explain a subject's template: what each medium and frame weighs in it, and which frames lie apart.

    The subject's features are read again from the gallery's source, and from nobody else, and fused as the
    version does. --json prints every frame, the tables the --top ones.

    \b
    share       of the template, from 0 to 1; a medium's frames share what
                the medium has
    cosine      to the mean of the other media; where there are but one or
                two, of the other frames
    outlier     a cosine below median - 3 * 1.4826 * MAD, of 5 frames or more
    negligible  less than a hundredth of an equal share
    effective   1 / sum of squared shares: so many equal frames would do

    \b
    Example:
      pfstore explain staff alice --plot alice.png
      pfstore explain staff alice --json | jq '.frames[] | select(.flags != [])'
    """
    from pfstore.gallery import galleries
    from pfstore.jobs import explain_plotting, explaining

    if plot is not None:
        explain_plotting.check(plot)
    with app.connect() as connection:
        chosen = galleries.version(connection, gallery, version)
        named = app.config.gallery(gallery)
        with app.source(named.source) as source:
            found = explaining.explain(connection, source, chosen, subject, source_name=named.source)
    if plot is not None:
        explain_plotting.plot(found, plot)
    app.show(found.as_dict() if app.json else None, _shown(found, top))


def _shown(found: ExplainedTemplate, top: int) -> RenderableType:
    from pfstore.cli.output import facts, stacked

    told = found.explanation
    conspicuous = (told.outliers | told.dominant | (told.alike >= 0)).nonzero()[0]
    media = [found.medium(number) for number in _highest(told.media_overall, top)]
    frames = [found.frame(number) for number in _highest(told.overall, top)]
    apart = [found.frame(number) for number in sorted(conspicuous.tolist(), key=lambda n: told.cosines[n])[:top]]
    rejects = [{"medium": r.medium or None, "row": r.row or None, "reason": str(r.reason), "detail": r.detail}
               for r in found.rejects[:top]]  # fmt: skip
    blocks = _blocks(found)
    parts = [
        facts(_facts(found)),
        _experts(found),
        _listed("media", media, len(found.media), ("medium", "frames", "share"), blocks, ("cosine", "outliers")),
        _listed("frames", frames, len(found.rows), _FRAME, blocks, ("cosine", "flags")),
        _listed("conspicuous frames", apart, len(conspicuous), _FRAME, [], ("cosine", "flags")),
        _listed("rejected rows", rejects, len(found.rejects), ("medium", "row", "reason", "detail"), [], ()),
    ]
    return stacked(*(part for one in parts if one is not None for part in (one, "")))


_FRAME = ("medium", "frame", "row", "share")


def _facts(found: ExplainedTemplate) -> dict[str, Any]:
    from pfstore.fusion.agreement import LEAST_FRAMES

    told, version = found.explanation, found.version
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in Counter(str(r.reason) for r in found.rejects).most_common())
    rejected = f", {len(found.rejects):,} rejected ({reasons})" if found.rejects else ""
    excluded = ", ".join(f"{count:,} {cause}" for cause, count in found.excluded.items())
    outliers = f"not told of fewer than {LEAST_FRAMES} frames"
    if told.limit is not None:
        outliers = f"{plural(int(told.outliers.sum()), 'frame')} with a cosine to the others below {told.limit:.4f}"
    pairs = {
        "subject": found.subject,
        "gallery": f"{version.gallery}, version {version.number}",
        "model": f"{version.model}, strategy {told.strategy}",
        "features": f"{plural(len(found.rows), 'frame')} in {_media(len(found.media))} fused{rejected}",
        "excluded": f"{excluded}: left out by the mapping" if excluded else None,
        "template": _template(found),
        "effective": f"{told.effective_frames:,.1f} frames of equal share",
        "outliers": outliers,
        "negligible": f"{plural(int(told.negligible.sum()), 'frame')} with less than a hundredth of an equal share",
        "duplicates": f"{plural(int((told.alike >= 0).sum()), 'frame')} with the values of an earlier one",
        "weights": None if told.exact else "each coordinate is trimmed by itself; shares are means over them",
    }
    return {name: value for name, value in pairs.items() if value is not None}


def _template(found: ExplainedTemplate) -> str:
    if found.changed:
        since = f"{found.stored.fused_at.astimezone():%Y-%m-%d %H:%M}"
        return (
            f"the source has changed since {since}, cosine {found.cosine:.4f} to the stored one; "
            f"{found.version.backfill} fuses it again"
        )
    if found.same:
        return f"as stored, cosine {found.cosine:.4f}"
    return f"NOT as stored (cosine {found.cosine:.4f}), though the source has not changed"


def _experts(found: ExplainedTemplate) -> RenderableType | None:
    from pfstore.cli.output import table
    from pfstore.jobs.explaining import ranked

    selected, probe = ranked(found.explanation.selection), ranked(found.probe)
    if selected is None or probe is None:
        return None
    rows = [
        one | {"as_a_probe": other["expert"], "its_score": other["score"]}
        for one, other in zip(selected, probe, strict=True)
    ]
    return table(rows, ("rank", "expert", "score", "as_a_probe", "its_score"))


def _blocks(found: ExplainedTemplate) -> list[str]:
    """Name the columns of the blocks; none where there is but one, whose shares are those of the template."""
    experts = found.explanation.experts
    return [] if experts is None or len(experts) == 1 else [f"expert {one}" for one in experts]


def _listed(
    title: str, described: Sequence[dict[str, Any]], total: int, before: tuple[str, ...], blocks: Sequence[str],
    after: tuple[str, ...],
) -> RenderableType | None:  # fmt: skip
    """Return a table with a column for each block, where there is room for them; None of nothing."""
    from rich.table import Table
    from rich.text import Text

    from pfstore.cli.output import stacked, table

    if not described:
        return None
    rows = [
        one | dict(zip(blocks, one.get("shares", ()), strict=False)) | {"flags": ", ".join(one.get("flags", ()))}
        for one in described
    ]
    used = [[name for name in names if any(row[name] not in (None, "") for row in rows)] for names in (before, after)]
    made = table(rows, [*used[0], *blocks, *used[1]])
    if not isinstance(made, Table):
        made = table(rows, [*used[0], *used[1]])
    shown = f"{title}: {len(rows):,} of {total:,}" if len(rows) < total else f"{title}: {total:,}"
    return stacked(Text(shown, style="bold"), made)


def _highest(shares: Any, top: int) -> list[int]:
    """Return the numbers of the highest shares, of equal ones the earlier first."""
    order: list[int] = (-shares).argsort(kind="stable")[:top].tolist()
    return order


def _media(count: int) -> str:
    return f"{count:,} {'medium' if count == 1 else 'media'}"
