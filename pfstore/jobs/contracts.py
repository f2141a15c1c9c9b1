"""The contract under which a model fuses a source."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import pfstore
from pfstore.errors import ContractError, SourceError
from pfstore.gallery.galleries import Contract, Strategy
from pfstore.jobs import working
from pfstore.sources.base import FeatureSource

if TYPE_CHECKING:
    from pfstore.fusion import Fuser


def contract_of(source: FeatureSource, fuser: Fuser, strategy: Strategy | None) -> Contract:
    """Return the contract under which this model, compact or not, fuses this source.

    Raises SourceError where no feature can be decoded, ContractError where the source's features have another
    dimension than the model takes, or there are no media to fuse first.
    """
    from pfstore.fusion import Compact

    if strategy == "media" and not source.has_media:
        raise ContractError('the strategy "media" needs a source with media: map a medium, or choose "set"')
    chosen = strategy or ("media" if source.has_media else "set")
    dimension, compact = _dimension(source, fuser), isinstance(fuser, Compact)
    return Contract(source.extractor, dimension, fuser.normalisation, fuser.digest, chosen, compact)


def form(fuser: Fuser, compact: bool) -> Fuser:
    """Return the model as it fuses: its compact form where that is wanted."""
    from pfstore.fusion import compacted

    return compacted(fuser) if compact else fuser


def _dimension(source: FeatureSource, fuser: Fuser) -> int:
    sample = source.sample()
    if sample.dimension is None:
        raise SourceError(_undecodable(sample.read, Counter(str(one.reason) for one in sample.rejects)))
    if fuser.dimension not in (None, sample.dimension):
        raise ContractError(
            f"the source's features have {sample.dimension} values, the model {fuser.name!r} takes {fuser.dimension}: "
            "they are of another extractor, or the encoding is not what the mapping says"
        )
    return sample.dimension


def _undecodable(read: int, reasons: Counter[str]) -> str:
    if read == 0:
        return "the source holds no feature: check its table, filter or path"
    found = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"not one of the first {read} rows gives a feature ({found}): check the mapping's column and encoding"


def plan_of(contract: Contract, source_name: str, mapping: str, limit: int | None = None) -> str:
    """Return a digest of all that must be the same for a run to be gone on with."""
    of_source = {"source": source_name, "mapping": mapping}
    # Another version may read or fuse otherwise.
    of_program = {"shard": working.SHARD_FEATURES, "pfstore": pfstore.__version__}
    described = asdict(contract) | of_source | of_program | {"limit": limit}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
