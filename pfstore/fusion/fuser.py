"""What a fusion model is to the rest of pfstore. Imports no torch, so that naming a model costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from pfstore.features import Floats, Offsets

if TYPE_CHECKING:
    from torch import Tensor

Role: TypeAlias = Literal["probe", "gallery"]
Features = TypeVar("Features", "Floats", "Tensor")
Cuts: TypeAlias = "Offsets | Tensor"

BASELINES = ("average", "norm-weighted", "trimmed-mean")


class Fuser(Protocol):
    """A model that fuses feature sets; the extension point for models of one's own.

    Features are [N, D] float32, as a numpy array or a torch tensor, and the result is of the same kind.
    Offsets are [S+1] integers from 0 to N, rising strictly: set s is features[offsets[s]:offsets[s+1]]. The input
    normalisation is applied inside. Every method raises ContractError where D is not the model's dimension,
    and InputError for malformed offsets, an empty set, a feature that is zero or not finite, and a set whose
    features cancel to zero (its CancelledSetsError); the message names the row or the set.
    """

    @property
    def name(self) -> str:
        """Name of the model: "proxyfusion", "nan", or the baseline's name."""

    @property
    def kind(self) -> str:
        """What sort of model it is: "proxyfusion", "nan" or "baseline"."""

    @property
    def dimension(self) -> int | None:
        """D, or None where any dimension will do."""

    @property
    def blocks(self) -> int:
        """How many D-vectors one template has."""

    @property
    def normalisation(self) -> str:
        """What is done to features first: "raw", "unit" or "scale:<factor>"."""

    @property
    def digest(self) -> str:
        """Hex SHA-256 over everything that decides the model's results."""

    def fuse(self, features: Features, offsets: Cuts, role: Role = "probe") -> Features:
        """Fuse each set at once: [S, blocks, D] float32, blocks by rank, not normalised."""

    def fuse_media(
        self, features: Features, media_offsets: Cuts, subject_offsets: Cuts, role: Role = "gallery"
    ) -> Features:
        """Fuse each medium, then each subject's media: [S, blocks, D] float32.

        media_offsets ([M+1]) count features, subject_offsets ([S+1]) count media.
        """

    def templates(self, features: Features, offsets: Cuts, role: Role = "probe") -> Features:
        """Give the results of fuse as templates: [S, blocks*D] float32, L2-normalised."""

    def templates_media(
        self, features: Features, media_offsets: Cuts, subject_offsets: Cuts, role: Role = "gallery"
    ) -> Features:
        """Give the results of fuse_media as templates: [S, blocks*D] float32, L2-normalised."""

    def describe(self) -> dict[str, Any]:
        """Describe the model as `model show` prints it; JSON-ready."""
