"""The loop: batches in, the network with the least error on held-out subjects out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pfstore.errors import InputError
from pfstore.fusion import Nan, NetworkModel, ProxyFusion
from pfstore.training.data import TrainingData
from pfstore.training.drawing import Drawing, Pairs, usable
from pfstore.training.losses import SupervisedContrastive, proxy_loss, simplex
from pfstore.training.options import Options
from pfstore.training.state import StateFile, packed, unpack
from pfstore.training.validating import Validation

_WARM_UP = 0.1  # the share of all steps in which the learning rate rises
_LAST_RATE = 0.01  # the share of the learning rate that is left at the end


@dataclass(frozen=True)
class Point:
    """One point of the curve. loss: mean since the last point. fnmr: on the held-out subjects at FMR `fmr`.

    error: what early stopping goes by, the geometric mean of FNMR over the targets.
    """

    step: int
    loss: float
    fmr: float
    fnmr: float
    error: float


@dataclass(frozen=True)
class Progress:
    """How far training is. point: the last validation. rate: features a second since the one before."""

    step: int
    steps: int
    loss: float
    rate: float
    point: Point | None


Observer = Callable[[Progress], None]
Wrap = Callable[[ProxyFusion | Nan], NetworkModel]


class Trainer:
    """Trains one network on some subjects and validates it on others.

    network: with its first weights, on the device to train on. data: normalised, as the network meets it. wrap: makes
    the model that takes the features as they are. state: where an unfinished training is kept. A step depends on the
    seed and its number alone, so a training that goes on from its state ends in the same weights: bit for bit on one
    kind of CPU, whatever the number of threads in float32, with the same number in bfloat16.
    """

    def __init__(
        self,
        network: ProxyFusion | Nan,
        data: TrainingData,
        validation: Validation,
        drawing: Drawing,
        options: Options,
        wrap: Wrap,
        state: StateFile,
    ) -> None:
        self.network, self.options = network, options
        self.validation = validation
        self._data, self._wrap, self._state = data, wrap, state
        self._mated, self._single = usable(data)
        self._drawing = drawing
        self._loss = SupervisedContrastive(options.temperature)
        self._device = next(network.parameters()).device
        self._optimiser = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.epoch, self.steps = options.steps_of(len(self._mated))
        self._every = -(-self.steps // options.validations)
        self._best = {key: one.clone() for key, one in network.state_dict().items()}
        self.curve: list[Point] = []

    @property
    def best(self) -> Point:
        """The point whose weights the network has in the end: the least error, of equal ones the first."""
        return min(self.curve, key=lambda point: point.error)

    def run(self, observe: Observer = lambda _: None) -> bool:
        """Train to the end, or until nothing gets better; the network then has its best weights.

        Returns whether it ended early. Raises InputError where the loss is no number.
        """
        step = self._resume()
        clock, losses, features = time.monotonic(), [], 0
        for pairs in self._batches(step):
            if self._exhausted():
                break
            losses.append(self._step(step, pairs))
            step, features = step + 1, features + pairs.features
            rate = features / max(time.monotonic() - clock, 1e-6)
            if step % self._every == 0 or step == self.steps:
                self._validate(step, sum(losses) / len(losses))
                losses.clear()
            observe(Progress(step, self.steps, losses[-1] if losses else self.curve[-1].loss, rate, self._last))
            if not losses:
                clock, features = time.monotonic(), 0
        self.network.load_state_dict(self._best)
        return step < self.steps

    @property
    def _last(self) -> Point | None:
        return self.curve[-1] if self.curve else None

    def _exhausted(self) -> bool:
        return bool(self.curve) and len(self.curve) - 1 - self.curve.index(self.best) >= self.options.patience

    def _resume(self) -> int:
        found = self._state.load()
        if found is None:
            return 0
        tensors, notes = found
        try:
            self._best = unpack(tensors, self.network, self._optimiser)
            self.curve = [Point(**point) for point in notes["curve"]]
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"{self._state.path} is damaged: {first}; start anew with --restart") from None
        return self.curve[-1].step

    def _batches(self, first: int) -> Iterator[Pairs]:
        """Draw the batches of all steps from the first on, some of them ahead in threads."""
        if self.options.workers == 0:
            yield from map(self._draw, range(first, self.steps))
            return
        ahead = 2 * self.options.workers
        with ThreadPoolExecutor(self.options.workers) as threads:
            waiting = [threads.submit(self._draw, step) for step in range(first, min(first + ahead, self.steps))]
            for step in range(first + len(waiting), self.steps + len(waiting)):
                drawn = waiting.pop(0).result()
                if step < self.steps:
                    waiting.append(threads.submit(self._draw, step))
                yield drawn

    def _draw(self, step: int) -> Pairs:
        options = self.options
        epoch, part = divmod(step, self.epoch)
        order = np.random.default_rng((options.seed, 2, epoch)).permutation(self._mated)
        # Every subject comes once an epoch; its last batch is filled up with the first subjects of it.
        size = min(options.subjects_per_batch, len(order))
        chosen = order[np.arange(part * size, (part + 1) * size) % len(order)]
        random = np.random.default_rng((options.seed, 3, step))
        single = random.choice(self._single, min(options.strangers, len(self._single)), replace=False)
        return self._drawing.pairs(self._data, chosen, single, random, options.repeats)

    def _step(self, step: int, pairs: Pairs) -> float:
        self.network.train()
        for group in self._optimiser.param_groups:
            group["lr"] = self.options.learning_rate * _share_of_rate(step, self.steps)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence((self.options.seed, 4, step)).generate_state(1)[0]))
            loss = self._loss_of(pairs)
        value = loss.item()
        if not math.isfinite(value):
            self._state.remove()  # its weights were on the way there
            raise InputError(
                f"the loss of step {step + 1} is {value}: the learning rate {self.options.learning_rate:g} is too "
                "high, or another setting is out of all proportion"
            )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return value

    def _loss_of(self, pairs: Pairs) -> Tensor:
        probes, references = pairs.probes, pairs.references
        features = torch.from_numpy(np.concatenate([probes.features, references.features])).to(self._device)
        offsets = np.concatenate([probes.offsets, probes.offsets[-1] + references.offsets[1:]])
        count = len(probes.offsets) - 1
        with self._precision():
            fused = self.network.both(features, offsets, count)
        templates = functional.normalize(fused.flatten(1).float(), dim=1)
        loss: Tensor = self._loss(templates, self._labels(count, len(templates) - count))
        if isinstance(self.network, ProxyFusion):
            vertices = simplex(self.network.experts, self.network.domain).to(self._device)
            for proxies in (self.network.proxies_p, self.network.proxies_g):
                pinned = proxy_loss(self.network.transform(proxies), vertices)
                loss = loss + self.options.proxy_loss_weight * pinned
        return loss

    def _labels(self, probes: int, references: int) -> Tensor:
        subjects = references // self.options.repeats
        mated = torch.arange(references) % subjects
        strangers = torch.arange(subjects, subjects + probes - references)
        return torch.cat([mated, strangers, mated]).to(self._device)

    def _precision(self) -> AbstractContextManager[object]:
        if self.options.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)

    def _validate(self, step: int, loss: float) -> None:
        figures = self.validation.figures(self._wrap(self.network))
        point = Point(step, loss, figures[-1].target, figures[-1].fnmr.value, self.validation.error(figures))
        self.curve.append(point)
        if self.best is point:
            self._best = {key: one.clone() for key, one in self.network.state_dict().items()}
        notes = {"curve": [asdict(one) for one in self.curve]}
        self._state.save(packed(self.network, self._best, self._optimiser), notes)


def _share_of_rate(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: up in a line, then down along a cosine."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
