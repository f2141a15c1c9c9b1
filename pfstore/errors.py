"""Every error that pfstore raises on purpose, and the exit code that each one has on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class PfstoreError(Exception):
    """Something pfstore cannot do, said in one line: what failed, the value at fault, what to do next."""

    exit_code: ClassVar[int] = 70


class ConfigError(PfstoreError):
    """pfstore.toml, an option or an environment variable says something unusable."""

    exit_code = 3


class DatabaseError(PfstoreError):
    """The gallery's PostgreSQL cannot be reached, refuses the login, or lacks the schema or pgvector."""

    exit_code = 4


class SourceError(PfstoreError):
    """A legacy store cannot be opened or does not look as its mapping says."""

    exit_code = 5


class MappingError(SourceError):
    """A mapping or preset names a table or column that the store has not, or keys that cannot be told apart."""


class ModelError(PfstoreError):
    """A checkpoint is damaged, incomplete or of another shape, or holds code instead of numbers."""

    exit_code = 6


class ContractError(PfstoreError):
    """A probe, model or source does not fit the contract of the gallery version it is used with."""

    exit_code = 7


class NotFoundError(PfstoreError):
    """There is no such gallery, version, model or subject, or the gallery holds no template yet."""

    exit_code = 8


class InputError(PfstoreError):
    """A file of probes or features cannot be read as what it should be."""

    exit_code = 9


class CancelledSetsError(InputError):
    """Some sets have no template: their features cancel each other to zero, or are too large for float32.

    of: "set", "medium" or "subject", what the numbers count. numbers: the first such ones, perhaps not all.
    """

    def __init__(self, message: str, of: str, numbers: Sequence[int]) -> None:
        super().__init__(message)
        self.of = of
        self.numbers = list(numbers)


class BusyError(PfstoreError):
    """Another run is writing the same gallery."""

    exit_code = 10


class TakenError(BusyError):
    """Another process has done the same shard meanwhile; nothing of this one was written."""


class ConflictError(PfstoreError):
    """What is asked for contradicts what is there: a name that is taken, a version in use or not complete."""

    exit_code = 12


class DeadlineError(PfstoreError):
    """A search took longer than it was given; nothing of it goes on."""

    exit_code = 13


class RejectsError(PfstoreError):
    """A run that was asked to be strict finished, and rejected something."""

    exit_code = 11
