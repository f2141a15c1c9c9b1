"""A split of any source: of each subject some media are the reference and others the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pfstore.errors import InputError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.evaluation.protocols.memory import Held, hold
from pfstore.evaluation.protocols.samples import IndexedSamples
from pfstore.evaluation.protocols.survey import Compared, features_fact, left_out, norms_fact, surveyed
from pfstore.features import Offsets, offsets_of
from pfstore.parts import Part, Parts, hashed, hashed_bits
from pfstore.sources.base import FeatureSource


@dataclass(frozen=True)
class _Roles:
    """What the subjects are for, by their numbers: on both sides, only among the probes, only in the gallery."""

    both: Sequence[int]
    searched: Sequence[int]
    distractors: Sequence[int]


def split_experiment(
    source: FeatureSource,
    *,
    parts: Parts | None = None,
    part: Part = "test",
    draws: int = 3,
    media: tuple[int, int] = (1, 3),
    unenrolled: float = 0.1,
    seed: int = 0,
    name: str = "split",
) -> Experiment:
    """Return a split of a source's subjects, those of one part or, where parts is None, all.

    Each draw is a gallery of its own: of each subject with enough media it takes media[0] to media[1] of them at random
    for the reference and as many of the others for the probe, so no medium is on both sides. Where the source has no
    media each feature is one. Of the subjects with fewer media one half are searched without a mate (non-mated
    probes) and the other half are distractors in the galleries; where there are none, the fraction unenrolled of the
    subjects is only searched. Who is what, and which media are drawn, follows from the subject's key and the seed. The
    features of the part are held in memory as float32.

    Raises InputError where fewer than two subjects have the media for both sides, or a parameter is out of range.
    """
    _check_parameters(draws, media, unenrolled)
    split = (part, parts) if parts else None
    held = hold(source, lambda subject: parts is None or parts.of(subject) == part)
    roles = _roles(held, media[0], unenrolled, seed, f"{name}{f', {part} part' if parts else ''}")
    compared = [_drawn(held, roles, media, seed, draw) for draw in range(1, draws + 1)]
    return surveyed(
        f"{name}, {part} subjects" if parts else name,
        compared,
        dimension=held.batch.dimension,
        extractor=source.extractor,
        facts=_facts(held, roles, {"draws": draws, "media_drawn": list(media), "seed": seed}, split),
        warnings=left_out("the source", held.read, held.rejected, held.firsts),
    )


def _check_parameters(draws: int, media: tuple[int, int], unenrolled: float) -> None:
    if draws < 1:
        raise InputError(f"draws: at least one, not {draws}")
    if not 1 <= media[0] <= media[1]:
        raise InputError(f"media: from at least 1 to at least as many, not {media[0]} to {media[1]}")
    if not 0 <= unenrolled < 1:
        raise InputError(f"unenrolled: a fraction of the subjects, 0 to less than 1, not {unenrolled}")


def _roles(held: Held, least: int, unenrolled: float, seed: int, where: str) -> _Roles:
    """Return who is compared with whom. least: how many media each side has at least."""
    enough = held.media_counts >= 2 * least
    able, few = enough.nonzero()[0].tolist(), (~enough).nonzero()[0].tolist()
    if len(able) < 2:
        raise InputError(
            f"{where}: {len(able)} of {len(held.subjects):,} subjects have {2 * least} media or more, as a reference "
            "and a probe need; at least 2 such subjects are needed"
        )
    # A stranger with fewer media than a side takes is of no use on either.
    strangers = [one for one in _by_hash(few, held, seed) if held.media_counts[one] >= least]
    if strangers:
        half = (len(strangers) + 1) // 2
        return _Roles(able, sorted(strangers[:half]), sorted(strangers[half:]))
    most = len(able) - 2  # two subjects at least stay on both sides
    count = min(most, max(1, round(unenrolled * len(able)))) if unenrolled else 0
    searched = sorted(_by_hash(able, held, seed)[:count])
    return _Roles([one for one in able if one not in set(searched)], searched, [])


def _by_hash(numbers: Sequence[int], held: Held, seed: int) -> list[int]:
    return sorted(numbers, key=lambda one: hashed(held.subjects[one], seed, "stranger"))


def _drawn(held: Held, roles: _Roles, media: tuple[int, int], seed: int, draw: int) -> Compared:
    references: dict[int, Offsets] = {}
    probes: dict[int, Offsets] = {}
    for one in roles.both:
        references[one], probes[one] = _two_sides(held, one, media, seed, draw)
    for one in roles.searched:
        probes[one] = _one_side(held, one, media, seed, draw)
    for one in roles.distractors:
        references[one] = _one_side(held, one, media, seed, draw)
    return Compared(f"draw {draw}", _samples(held, references), _samples(held, probes))


def _generator(subject: str, seed: int, draw: int) -> np.random.Generator:
    return np.random.default_rng(hashed_bits(subject, seed, f"draw {draw}"))


def _two_sides(held: Held, subject: int, media: tuple[int, int], seed: int, draw: int) -> tuple[Offsets, Offsets]:
    """Return the media of the reference and of the probe, none of them in both."""
    random = _generator(held.subjects[subject], seed, draw)
    shuffled = _shuffled(held, subject, random)
    least, most = media
    first = int(random.integers(least, min(most, len(shuffled) - least) + 1))
    second = int(random.integers(least, min(most, len(shuffled) - first) + 1))
    sides = shuffled[:first], shuffled[first : first + second]
    # Else the side that is drawn first would be the larger of the two.
    return sides if random.integers(2) else sides[::-1]


def _one_side(held: Held, subject: int, media: tuple[int, int], seed: int, draw: int) -> Offsets:
    random = _generator(held.subjects[subject], seed, draw)
    shuffled = _shuffled(held, subject, random)
    return shuffled[: int(random.integers(media[0], min(media[1], len(shuffled)) + 1))]


def _shuffled(held: Held, subject: int, random: np.random.Generator) -> Offsets:
    first, last = held.batch.subject_offsets[subject : subject + 2]
    return np.asarray(first + random.permutation(int(last - first)), dtype=np.int64)


def _samples(held: Held, drawn: Mapping[int, Offsets]) -> IndexedSamples:
    """Return the samples of some media of each subject; the media stand in their own order."""
    ordered = {one: np.sort(drawn[one]) for one in sorted(drawn)}
    media = np.concatenate([np.empty(0, np.int64), *ordered.values()])
    bounds = zip(held.batch.media_offsets[media], held.batch.media_offsets[media + 1], strict=True)
    rows = [np.arange(first, last) for first, last in bounds]
    return IndexedSamples(
        {held.subjects[one]: held.subjects[one] for one in ordered},
        held.batch.features,
        np.concatenate([np.empty(0, np.int64), *rows]),
        media_offsets=offsets_of(np.diff(held.batch.media_offsets)[media]),
        sample_offsets=offsets_of([len(one) for one in ordered.values()]),
        media=[held.batch.media_ids[one] for one in media.tolist()],
    )


def _facts(held: Held, roles: _Roles, drawn: dict[str, Any], split: tuple[Part, Parts] | None) -> dict[str, Any]:
    norms = np.sqrt(np.einsum("nd,nd->n", held.batch.features, held.batch.features))
    return {
        **({"part": split[0], "parts": split[1].as_dict()} if split else {}),
        **drawn,
        "subjects": len(held.subjects),
        "roles": {"both": len(roles.both), "searched": len(roles.searched), "distractors": len(roles.distractors)},
        "features": features_fact(held.read, held.rejected),
        "norms": norms_fact(norms),
    }
