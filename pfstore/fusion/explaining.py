"""Why a template is as it is: which experts were chosen, what each medium and frame weighs, and what lies apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pfstore.errors import ModelError
from pfstore.features import Floats, Offsets
from pfstore.fusion.agreement import cosines_to, cosines_to_others, first_alike, outlier_limit
from pfstore.fusion.attention import Attending, Attention, Numbers, Weights
from pfstore.fusion.compact import Compact, summed, whole
from pfstore.fusion.fuser import Fuser, Role

Strategy: TypeAlias = Literal["media", "set"]

NEGLIGIBLE = 0.01
"""A frame with less than this part of an equal share weighs next to nothing."""

DOMINANT = 0.5
"""A frame with more than this share outweighs all others together."""

LEAST_FOR_DOMINANCE = 3
"""Of two frames one nearly always has more than half, which tells nothing."""


@dataclass(frozen=True)
class Selection:
    """The experts that one set was given to. experts: [blocks] int64, best first. scores: [K] float64, of all K."""

    experts: Numbers
    scores: Weights


@dataclass(frozen=True)
class Explanation:
    """How the template of one subject, of N frames in M media, comes about.

    template: [blocks, D] float32, as the fuser gives it, not normalised; of a compact model the one sum of its blocks.
    weights: [blocks, N] float64, such that Σ weights[k, n] · f[n]/|f[n]| is template[k]. Under the strategy
        "media" each medium is fused to vectors z[m, j], which are then fused as unit vectors, so a frame's
        weight is Σ over the first stage's blocks j of v[k, m, j] · w[j, n] / |z[m, j]|: w, what it weighs in its
        medium, v, what the medium's vector weighs in the second stage.
    exact: whether that sum is exact. In a trimmed mean, which cuts each coordinate by itself, a weight is the
        mean of those in all coordinates, and over media the product of such means.
    media_weights: [blocks, M] float64, each medium's share of a block, summing to 1: under "media" of what the
        second stage gives its vectors, under "set" of its frames' weights.
    media_offsets: [M+1] int64, counting frames.
    selection: the experts of the blocks; None where the model has none to choose from. Under "media", of the
        second stage, which made the template.
    media_experts: [M, blocks] int64, under "media" the experts that each medium was given to, else None.
    cosines: [N] float64, of each frame to the mean of the others, as agreement.cosines_to_others has it.
    template_cosines: [blocks, N] float64, of each frame to each block; what weighs much is near by itself.
    alike: [N] int64, the first frame with the same values, -1 where there is none before.
    """

    strategy: Strategy
    role: Role
    template: Floats
    weights: Weights
    exact: bool
    media_weights: Weights
    media_offsets: Offsets
    selection: Selection | None
    media_experts: Numbers | None
    cosines: Weights
    template_cosines: Weights
    alike: Numbers

    @cached_property
    def shares(self) -> Weights:
        """[blocks, N], each frame's share of a block: the weights of a medium's frames, made to sum to its own.

        They sum to 1. They are not the weights over their sum, because where a medium's frames disagree their mean
        is short and its weights are large, though the medium as a whole counts no more for it.
        """
        within = np.add.reduceat(self.weights, self.media_offsets[:-1], axis=1)
        factors = self.media_weights / np.where(within > 0, within, 1)
        return self.weights * np.repeat(factors, np.diff(self.media_offsets), axis=1)

    @cached_property
    def overall(self) -> Weights:
        """[N], each frame's mean share over the blocks."""
        return np.asarray(self.shares.mean(axis=0))

    @cached_property
    def media_overall(self) -> Weights:
        """[M], each medium's mean share over the blocks."""
        return np.asarray(self.media_weights.mean(axis=0))

    @property
    def experts(self) -> list[int] | None:
        """The expert of each block; None where the model has none to choose from, or the blocks are summed."""
        if self.selection is None or len(self.selection.experts) != len(self.weights):
            return None
        experts: list[int] = self.selection.experts.tolist()
        return experts

    @property
    def effective_frames(self) -> float:
        """How many frames of equal share would average out noise as well: 1 / Σ share² (Kish 1965)."""
        return float(1 / np.square(self.overall).sum())

    @cached_property
    def limit(self) -> float | None:
        """The cosine to the others below which a frame is an outlier; see agreement.outlier_limit."""
        return outlier_limit(self.cosines)

    @cached_property
    def outliers(self) -> NDArray[np.bool_]:
        """[N], the frames whose cosine to the others is below the limit."""
        return np.asarray(self.cosines < (-np.inf if self.limit is None else self.limit))

    @cached_property
    def negligible(self) -> NDArray[np.bool_]:
        """[N], the frames with less than NEGLIGIBLE of an equal share."""
        return np.asarray(self.overall < NEGLIGIBLE / len(self.overall))

    @cached_property
    def dominant(self) -> NDArray[np.bool_]:
        """[N], the frame, of LEAST_FOR_DOMINANCE or more, whose share is above DOMINANT."""
        return np.asarray((self.overall > DOMINANT) & (len(self.overall) >= LEAST_FOR_DOMINANCE))


def explain(
    fuser: Fuser, features: Floats, media_offsets: Offsets, *, strategy: Strategy, role: Role = "gallery"
) -> Explanation:
    """Explain the template of one subject: features [N, D] float32 in media at offsets [M+1] int64.

    The template is what `fuse` gives of all features ("set"), or `fuse_media` of the media ("media").

    Raises ModelError for a fuser that cannot tell how it weighs (see attention.Attending), and what fusing raises.
    """
    weighed = (_by_media if strategy == "media" else _by_set)(_attending(fuser), features, media_offsets, role)
    if isinstance(fuser, Compact):
        weighed = weighed.summed()
    return Explanation(
        strategy=strategy,
        role=role,
        template=weighed.template,
        weights=weighed.weights,
        exact=weighed.last.exact,
        media_weights=weighed.of_media / weighed.of_media.sum(axis=1, keepdims=True),
        media_offsets=np.asarray(media_offsets, dtype=np.int64),
        selection=_selection(weighed.last),
        media_experts=weighed.media_experts,
        cosines=cosines_to_others(features, media_offsets),
        template_cosines=cosines_to(weighed.template, features),
        alike=first_alike(features),
    )


def selection(fuser: Fuser, features: Floats, role: Role = "probe") -> Selection | None:
    """Return the experts that these features ([N, D]) as one set are given to; None where there is no choice.

    Raises what explain raises.
    """
    return _selection(_attending(fuser).attend(features, np.array([0, len(features)]), role))


class _AttendingFuser(Fuser, Attending, Protocol):
    """What explaining needs of a model."""


@dataclass(frozen=True)
class _Weighed:
    """What the strategies tell, each in its own way. of_media: [blocks, M]. last: of the stage that came last."""

    template: Floats
    weights: Weights
    of_media: Weights
    last: Attention
    media_experts: Numbers | None

    def summed(self) -> _Weighed:
        """Return what is told of the sum of the blocks, as one block."""
        template = summed(self.template[None], "subject")[0]
        weights, of_media = (part.sum(axis=0, keepdims=True) for part in (self.weights, self.of_media))
        return _Weighed(template, weights, of_media, self.last, self.media_experts)


def _by_set(fuser: _AttendingFuser, features: Floats, media_offsets: Offsets, role: Role) -> _Weighed:
    whole = np.array([0, len(features)])
    attention = fuser.attend(features, whole, role)
    of_media = np.add.reduceat(attention.weights, media_offsets[:-1], axis=1)
    return _Weighed(fuser.fuse(features, whole, role)[0], attention.weights, of_media, attention, None)


def _by_media(fuser: _AttendingFuser, features: Floats, media_offsets: Offsets, role: Role) -> _Weighed:
    media = len(media_offsets) - 1
    template = fuser.fuse_media(features, media_offsets, np.array([0, media]), role)[0]
    vectors = fuser.fuse(features, media_offsets, role)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=2)
    first = fuser.attend(features, media_offsets, role)
    flat = vectors.reshape(-1, vectors.shape[2])
    last = fuser.attend(flat, np.array([0, len(flat)]), role, fused=True)
    pulls = last.weights.reshape(-1, *lengths.shape)
    weights = _through(pulls / lengths, first.weights, np.diff(media_offsets))
    return _Weighed(template, weights, pulls.sum(axis=2), last, first.experts)


def _through(pulls: Weights, weights: Weights, counts: Numbers) -> Weights:
    """[blocks, N]: the first stage's weights ([J, N]), each times the pull ([blocks, M, J]) of what it went into."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return np.stack([np.einsum("nj,jn->n", of_block[owners], weights) for of_block in pulls])


def _selection(attention: Attention) -> Selection | None:
    if attention.experts is None or attention.scores is None:
        return None
    return Selection(attention.experts[0], attention.scores[0])


def _attending(fuser: Fuser) -> _AttendingFuser:
    full = whole(fuser)
    if not isinstance(full, Attending):
        raise ModelError(f"the model {full.name} cannot be explained: it has no method `attend`")
    return full
