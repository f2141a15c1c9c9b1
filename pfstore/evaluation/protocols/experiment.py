"""What a protocol compares: the references of its galleries and the probes, as a stream of whole sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pfstore.features import FeatureBatch, Offsets


@dataclass(frozen=True)
class Failure:
    """A sample without a usable feature: of a probe a failure to acquire, of a reference a failure to enrol.

    sample: its id. subject: whose it is. reason: in a few words.
    """

    sample: str
    subject: str
    reason: str


@dataclass(frozen=True)
class SampleBatch:
    """Some whole samples, each the feature set of one probe or one reference.

    features: its subject_ids are the samples' ids, each once in all of the samples; its media are theirs.
    subjects: [S] str, the subject of each sample. failures: samples that have no features; in no other list.
    """

    features: FeatureBatch
    subjects: Sequence[str]
    failures: Sequence[Failure] = ()


class Samples(Protocol):
    """References or probes that can be read more than once, the same way each time."""

    def read(self, features: int) -> Iterator[SampleBatch]:
        """Yield batches of about so many features and whole samples."""
        ...


@dataclass(frozen=True)
class Gallery:
    """References and the probes that are compared with them, each probe with every reference.

    One reference a subject. A probe whose subject has no reference here is a non-mated search. Galleries with the same
    probes hold the same object, which is then fused once.
    """

    name: str
    references: Samples
    probes: Samples


@dataclass(frozen=True)
class Pairs:
    """The comparisons of a 1:1 protocol that lists them, by the ids of the samples.

    references, probes: [C] int64, places in reference_ids and probe_ids. Failures are among the ids.
    """

    reference_ids: Sequence[str]
    probe_ids: Sequence[str]
    references: Offsets
    probes: Offsets


@dataclass(frozen=True)
class Experiment:
    """One protocol on one set of features, checked: every file that it names was found before anything is read.

    name: as "BTS3.1 face_incl_trt". galleries: at least one; the comparisons of all of them together make the 1:1
    figures, unless pairs (with one gallery) lists those to make; the 1:N figures are each gallery's own.
    identification: whether there are 1:N figures. facts: what a reader must know of the data, for the report;
    JSON-ready, in the order to print. warnings: what was left out or is unusual, a sentence each. dimension: D.
    extractor: the label of the features, "" where nothing tells it.
    """

    name: str
    galleries: Sequence[Gallery]
    dimension: int
    extractor: str
    pairs: Pairs | None = None
    identification: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
