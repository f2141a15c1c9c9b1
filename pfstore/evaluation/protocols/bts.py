"""BTS3.1, the test set of BRIAR: videos from afar, searched in two galleries that share their distractors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from pfstore.config import subject_expression
from pfstore.errors import InputError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.evaluation.protocols.media import MediaFeatures, open_media
from pfstore.evaluation.protocols.samples import ChunkedSamples, numbered, usual_dimension
from pfstore.evaluation.protocols.sheets import Sheet, bare, read_names, read_sheet
from pfstore.evaluation.protocols.survey import Compared, shown, surveyed
from pfstore.sources.assembly import Chunk, Fault
from pfstore.sources.base import Reason
from pfstore.sources.keys import storable

SUBJECT_PATTERN = r"(?<![A-Za-z0-9])(G\d{5})(?![0-9])"
"""A BRIAR subject in the name of a medium: G and five digits."""

_PROBES = "Probe_BTS_briar-rd_ALL.csv"
_GALLERIES = ("Gallery1.csv", "Gallery2.csv")
_DISTRACTORS = "*distractors*.txt"
_SUBJECT = ("subjectId", "subject_id", "subject")
_MEDIA = ("media_path", "filepath", "media", "path")
_ENTRY = ("entry_id", "entryId")
_MISSING = Fault(Reason.EMPTY, "no file of features")


@dataclass(frozen=True)
class _Medium:
    """One row: the medium's name, the key of its features, None where there are none, and where the row is."""

    name: str
    key: str | None
    place: str


_Media = dict[str, list[_Medium]]


def bts_experiment(
    features: Path,
    *,
    folder: Path | None = None,
    probes: Path | None = None,
    galleries: Sequence[Path] = (),
    distractors: Path | None = None,
    condition: str = "face_incl_trt",
    subject_pattern: str = SUBJECT_PATTERN,
    allow_missing: bool = False,
    extractor: str = "",
    dimension: int | None = None,
) -> Experiment:
    """Return BTS3.1: the probes of one condition against two galleries, each gallery on its own in 1:N.

    features: by medium, as open_media takes them. folder: holds the protocol's files as they are published, also in
    its analysis_main; probes, galleries and distractors name them one by one.

    The CSV of probes has the columns entry_id, media_path, for each condition one of true and false, and subjectId
    where there is one; condition names the column to take, "" takes every row. Those of galleries have subjectId and
    media_path; without the latter, a subject's media are those in the folder "gallery1" of the features (as the CSV is
    called) whose name tells the subject. distractors: a text of subjects, or of names that tell them, one a line; they
    are put into every gallery. subject_pattern: finds the subject in a name where no column tells it.

    Each row of probes is a probe, whose features are at its media_path or, as the reference has them, at
    "probe/<entry_id>-<name>". Empty features are a failure to acquire; allow_missing: so is a row without a file.

    Raises InputError where a file, a column or a subject is missing, and where rows name files of features that are not
    there: their number and the first ones, before any feature is read.
    """
    pattern, store = _Subjects(subject_pattern), open_media(features)
    found = _files(folder, probes, galleries)
    searched, subjects = _probes(read_sheet(found[0]), condition, store, pattern)
    enrolled = {path.stem: _gallery(read_sheet(path), store, pattern) for path in found[1:]}
    shared = _share(enrolled, distractors or _distractors(folder), pattern)
    missing = _missing([searched, *enrolled.values()], allow_missing)
    dimension = dimension or usual_dimension(chain(*(_chunks(media, store) for media in enrolled.values())))
    samples = _samples(searched, subjects, store, dimension)
    compared = [
        Compared(name, _samples(media, {one: one for one in media}, store, dimension), samples)
        for name, media in enrolled.items()
    ]
    return surveyed(
        f"BTS3.1 {condition}".rstrip(),
        compared,
        dimension=dimension,
        extractor=extractor,
        facts={"condition": condition or "all", "distractors": shared},
        warnings=missing,
    )


def _files(folder: Path | None, probes: Path | None, galleries: Sequence[Path]) -> list[Path]:
    """Return the CSV of the probes and those of the galleries. Raises InputError where one is not told or found."""
    if folder is None and not (probes and galleries):
        raise InputError("BTS3.1 needs either the folder of the protocol's files, or probes and galleries")
    found = [probes or _published(folder, _PROBES), *(galleries or (_published(folder, one) for one in _GALLERIES))]
    if len({path.stem for path in found}) < len(found):
        raise InputError(f"two of the protocol's files are called alike: {shown(str(path) for path in found)}")
    return found


def _places(folder: Path | None) -> list[Path]:
    return [folder / "analysis_main", folder] if folder else []


def _published(folder: Path | None, name: str) -> Path:
    found = next((place / name for place in _places(folder) if (place / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder}: has no {name}, neither itself nor in analysis_main; name the file")
    return found


def _distractors(folder: Path | None) -> Path | None:
    found = sorted(path for place in _places(folder) for path in place.glob(_DISTRACTORS))
    if len(found) > 1:
        raise InputError(f"{folder}: several files list distractors ({shown(one.name for one in found)}); name one")
    return next(iter(found), None)


class _Subjects:
    """Finds the subject in the name of a medium."""

    def __init__(self, pattern: str) -> None:
        try:
            self._expression = subject_expression(pattern)
        except ValueError as error:
            raise InputError(f"subject_pattern: {error}") from None

    def found_in(self, name: str) -> str | None:
        """Return it, None where there is none. A file is called more exactly than its folders are."""
        matches = list(self._expression.finditer(name))
        return matches[-1][1] if matches else None

    def of(self, name: str, place: str) -> str:
        """Return it. Raises InputError where there is none."""
        if (subject := self.found_in(name)) is None:
            raise InputError(
                f"{place}: {name!r} tells no subject, and there is no column subjectId; set subject_pattern"
            )
        return subject


def _probes(sheet: Sheet, condition: str, store: MediaFeatures, pattern: _Subjects) -> tuple[_Media, dict[str, str]]:
    """Return the media of each probe, and its subject."""
    entries, names, told = sheet.column(*_ENTRY), sheet.column(*_MEDIA), sheet.optional(*_SUBJECT)
    taken = sheet.flags(*_condition_names(condition)) if condition else [True] * len(names)
    media: _Media = defaultdict(list)
    subjects: dict[str, str] = {}
    for row, name in enumerate(names):
        if not taken[row]:
            continue
        place, flat = sheet.place(row), f"{entries[row]}-{_stem(name)}"
        subject = bare(told[row]) if told else pattern.of(name, place)
        key = store.find(name, f"probe/{name}", f"probe/{flat}", flat)
        if subjects.setdefault(flat, subject) != subject:
            raise InputError(f"{place}: probe {flat!r} is of {subjects[flat]!r} and of {subject!r}")
        media[flat].append(_Medium(name, key, place))
    if not media:
        raise InputError(f"{sheet.path}: no probe is of {condition}")
    return media, subjects


def _condition_names(condition: str) -> tuple[str, ...]:
    # The restricted face is called both in files that are about.
    return condition, condition.replace("face_restr_", "face_rest_"), condition.replace("face_rest_", "face_restr_")


def _gallery(sheet: Sheet, store: MediaFeatures, pattern: _Subjects) -> _Media:
    """Return the media of each subject; where no column names them, those found by the subject in their names."""
    subjects = [bare(one) for one in sheet.column(*_SUBJECT)]
    names, folder = sheet.optional(*_MEDIA), sheet.path.stem.lower()
    media: _Media = {subject: [] for subject in subjects}
    if names is not None:
        for row, (subject, name) in enumerate(zip(subjects, names, strict=True)):
            key = store.find(name, f"{folder}/{name}", f"{folder}/{_stem(name)}")
            media[subject].append(_Medium(name, key, sheet.place(row)))
        return media
    for key in store.keys:
        if key.startswith(f"{folder}/") and (subject := pattern.found_in(key) or "") in media:
            media[subject].append(_Medium(key, key, f"{sheet.path}"))
    for row, subject in enumerate(subjects):
        if not media[subject]:
            media[subject].append(_Medium(f"{folder}/…{subject}…", None, sheet.place(row)))
    return media


def _share(galleries: Mapping[str, _Media], path: Path | None, pattern: _Subjects) -> int:
    """Give each gallery the distractors that only another has; return how many there are."""
    if path is None:
        return 0
    distractors: dict[str, None] = {}
    for line in read_names(path):
        subject = line if any(line in one for one in galleries.values()) else pattern.found_in(line)
        having = [one[subject] for one in galleries.values() if subject in one] if subject else []
        if not having or subject is None:
            raise InputError(f"{path}: distractor {line!r} is in none of the galleries ({', '.join(galleries)})")
        best = max(having, key=lambda media: sum(medium.key is not None for medium in media))
        for media in galleries.values():
            if not any(medium.key for medium in media.get(subject, [])):
                media[subject] = list(best)
        distractors[subject] = None
    return len(distractors)


def _missing(sides: Sequence[_Media], allowed: bool) -> list[str]:
    """Return a warning of the rows without a file. Raises InputError where they are not allowed."""
    # Galleries share the rows of their distractors.
    rows = {medium: None for side in sides for media in side.values() for medium in media}
    without = [medium for medium in rows if medium.key is None]
    if not without:
        return []
    first = ", ".join(f"{medium.place} {medium.name!r}" for medium in without[:5])
    what = f"{len(without):,} of {len(rows):,} rows name a medium without a file of features: {first}"
    if not allowed:
        raise InputError(f"{what}; extract them, or set allow_missing to count them as failures to acquire")
    return [what]


def _samples(media: _Media, subjects: Mapping[str, str], store: MediaFeatures, dimension: int | None) -> ChunkedSamples:
    named = numbered(subjects.items(), "sample")
    return ChunkedSamples(named.__getitem__, lambda: _chunks(media, store), dimension)


def _chunks(media: _Media, store: MediaFeatures) -> Iterator[Chunk]:
    for sample, rows in media.items():
        # A medium may be listed twice, as when two entries of a sheet cut it differently.
        for medium in {one.name: one for one in rows}.values():
            if medium.key is None:
                yield Chunk([storable(sample)], [medium.name], [medium.place], [None], {0: _MISSING})
            else:
                yield from store.chunks(medium.key, storable(sample), medium.name)


def _stem(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[0]
