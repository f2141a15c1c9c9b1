"""What all models share: checks, input normalisation, work by the chunk, two-stage fusion, templates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, Literal

import torch
from torch import Tensor

from pfstore.errors import CancelledSetsError, InputError, ModelError
from pfstore.features import Offsets
from pfstore.fusion.attention import Attention
from pfstore.fusion.feeding import fed
from pfstore.fusion.fuser import Cuts, Features, Role
from pfstore.fusion.inputs import (
    ZERO_FEATURE,
    as_offsets,
    as_tensor,
    check_features,
    check_fused,
    check_role,
    like,
)
from pfstore.fusion.normalisation import Normalisation
from pfstore.fusion.ragged import runs

# Values of features that are worked on at a time (64 MiB of float32), to bound all that is derived from them.
CHUNK_VALUES = 2**24
# The same on a GPU, which takes as long to start the work on a smaller chunk as to do it.
GPU_CHUNK_VALUES = 2**27
# A set's contexts and templates take about as much memory as this many features.
SET_SURCHARGE = 16

Prepare = Callable[[Tensor, int], Tensor]


class Templating(ABC):
    """What a Fuser gives as templates, for those that fuse."""

    @abstractmethod
    def fuse(self, features: Features, offsets: Cuts, role: Role = "probe") -> Features:
        """Fuse each set at once: [S, blocks, D]."""

    @abstractmethod
    def fuse_media(
        self, features: Features, media_offsets: Cuts, subject_offsets: Cuts, role: Role = "gallery"
    ) -> Features:
        """Fuse each medium, then each subject's media: [S, blocks, D]."""

    def templates(self, features: Features, offsets: Cuts, role: Role = "probe") -> Features:
        """Give the results of fuse as templates: [S, blocks*D] float32, L2-normalised."""
        return _normalised(self.fuse(features, offsets, role))

    def templates_media(
        self, features: Features, media_offsets: Cuts, subject_offsets: Cuts, role: Role = "gallery"
    ) -> Features:
        """Give the results of fuse_media as templates: [S, blocks*D] float32, L2-normalised."""
        return _normalised(self.fuse_media(features, media_offsets, subject_offsets, role))


class ChunkedFuser(Templating):
    """A Fuser made of one method, `_pool`, that fuses a chunk of prepared sets.

    In two-stage fusion both stages go through the head of the given role. The input normalisation is for the
    extractor's features, so the second stage takes the fused vectors as they are: fusing under a
    normalisation is the same as fusing, "raw", features that were normalised beforehand.
    """

    name: str
    kind: Literal["proxyfusion", "nan", "baseline"]
    dimension: int | None
    blocks: int

    def __init__(self, normalisation: Normalisation) -> None:
        self._normalisation = normalisation

    @property
    def normalisation(self) -> str:
        """What is done to features first: "raw", "unit" or "scale:<factor>"."""
        return str(self._normalisation)

    @property
    @abstractmethod
    def digest(self) -> str:
        """Hex SHA-256 over everything that decides the model's results."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Describe the model as `model show` prints it; JSON-ready."""

    @abstractmethod
    def _pool(self, features: Tensor, offsets: Offsets, role: Role) -> tuple[Tensor, Tensor]:
        """Fuse prepared features: [S, blocks, D], and the norm that it has where a set points one way."""

    @property
    def _device(self) -> torch.device | None:
        """Where the model computes; None for where the features are."""
        return None

    @property
    def _on_gpu(self) -> bool:
        return self._device is not None and self._device.type == "cuda"

    def fuse(self, features: Features, offsets: Cuts, role: Role = "probe") -> Features:
        """Fuse each set at once: [S, blocks, D] float32, by rank, not normalised. Errors as in Fuser."""
        check_role(role)
        values = as_tensor(features, self.dimension)
        cuts = as_offsets(offsets, len(values), "set", "features")
        return like(self._stage(values, cuts, role, self._prepare, "set", 0, values.device), features)

    def fuse_media(
        self, features: Features, media_offsets: Cuts, subject_offsets: Cuts, role: Role = "gallery"
    ) -> Features:
        """Fuse each medium, then each subject's media: [S, blocks, D] float32; errors as in Fuser.

        media_offsets ([M+1]) count features, subject_offsets ([S+1]) count media.
        """
        check_role(role)
        values = as_tensor(features, self.dimension)
        media = as_offsets(media_offsets, len(values), "medium", "features")
        subjects = as_offsets(subject_offsets, len(media) - 1, "subject", "media")
        fused = self._empty(values, len(subjects) - 1, values.device)
        for first, last in self._chunks(media[subjects], values.shape[1]):
            chunk = subjects[first : last + 1]
            fused[first:last] = self._subjects(values, media, chunk, role, first)
        return like(fused, features)

    def attend(self, features: Features, offsets: Cuts, role: Role = "probe", *, fused: bool = False) -> Attention:
        """Tell the weights of fuse on the same arguments, of one set or more; errors as in Fuser.

        fused: the features are fused vectors, as the second stage of fuse_media takes them: the input
        normalisation is not for them. Raises ModelError for a model that weighs in no way it could tell.
        """
        check_role(role)
        values = as_tensor(features, self.dimension)
        cuts = as_offsets(offsets, len(values), "set", "features")
        if len(cuts) == 1:
            raise InputError("there is no set whose weights could be told")
        parts = []
        with torch.inference_mode(), closing(self._fed(values, cuts)) as chunks:
            for _, chunk, rows in chunks:
                prepared = rows if fused else self._prepare(rows, int(chunk[0]))
                parts.append(self._attend(prepared, chunk - chunk[0], role))
        return Attention.joined(parts)

    def _attend(self, features: Tensor, offsets: Offsets, role: Role) -> Attention:  # noqa: ARG002
        """Tell the weights of _pool on the same arguments."""
        raise ModelError(f"the model {self.name} cannot tell how it weighs features")

    def _subjects(self, values: Tensor, media: Offsets, subjects: Offsets, role: Role, first: int) -> Tensor:
        """[n, blocks, D] for the subjects from number first on, whose offsets these are."""
        begin, end = int(subjects[0]), int(subjects[-1])
        # The second stage goes on where the first computed: what it takes may be more than the features.
        here = values.device if self._device is None else self._device
        vectors = self._stage(values, media[begin : end + 1], role, self._prepare, "medium", begin, here)
        cancelled = (vectors.norm(dim=2) < ZERO_FEATURE).any(dim=1)
        if cancelled.any():
            numbers = (cancelled.nonzero()[:, 0] + begin).tolist()
            raise CancelledSetsError(f"the features of medium {numbers[0]} cancel to zero", "medium", numbers)
        cuts = (subjects - begin) * self.blocks
        return self._stage(vectors.flatten(0, 1), cuts, role, _as_they_are, "subject", first, values.device)

    def _stage(
        self, values: Tensor, offsets: Offsets, role: Role, prepare: Prepare, of: str, number: int, to: torch.device
    ) -> Tensor:
        """[S, blocks, D] on the device `to`, of the sets at these offsets into the values.

        Errors count the sets from this number.
        """
        fused = self._empty(values, len(offsets) - 1, to)
        with torch.inference_mode(), closing(self._fed(values, offsets)) as chunks:
            for first, cuts, rows in chunks:
                pooled, reach = self._pool(prepare(rows, int(cuts[0])), cuts - cuts[0], role)
                check_fused(pooled.flatten(1).norm(dim=1), reach, of, number + first)
                fused[first : first + len(pooled)].copy_(pooled, non_blocking=True)
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
        return fused

    def _fed(self, values: Tensor, offsets: Offsets) -> Generator[tuple[int, Offsets, Tensor]]:
        """Yield the sets a chunk at a time: the first's number, their offsets, their rows where the model computes."""
        chunks = list(self._chunks(offsets, values.shape[1]))
        bounds = [(int(offsets[first]), int(offsets[last])) for first, last in chunks]
        with closing(fed(values, bounds, self._device)) as coming:
            for (first, last), rows in zip(chunks, coming, strict=True):
                yield first, offsets[first : last + 1], rows

    def _prepare(self, features: Tensor, first: int) -> Tensor:
        check_features(features, first)
        return self._normalisation.apply(features)

    def _empty(self, values: Tensor, sets: int, device: torch.device) -> Tensor:
        # Copies from a GPU into memory that is not pinned are an order of magnitude slower.
        pinned = self._on_gpu and device.type == "cpu"
        return torch.empty((sets, self.blocks, values.shape[1]), device=device, pin_memory=pinned)

    def _chunks(self, offsets: Offsets, dimension: int) -> Iterator[tuple[int, int]]:
        return runs(offsets, (GPU_CHUNK_VALUES if self._on_gpu else CHUNK_VALUES) // dimension, SET_SURCHARGE)


def _as_they_are(features: Tensor, _first: int) -> Tensor:
    return features


def _normalised(fused: Features) -> Features:
    """Make templates of fused vectors ([S, blocks, D]): [S, blocks*D], L2-normalised."""
    flat = torch.as_tensor(fused).flatten(1)
    return like(flat / flat.norm(dim=1, keepdim=True), fused)
