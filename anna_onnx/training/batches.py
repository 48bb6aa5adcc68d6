"""Batches: which spectra a step sees and what is done to them, a pure function of the seed and the step.

Because nothing else enters, a run that goes on from a checkpoint sees what it would have
seen, and batches may be made in the loop or in any number of loader workers.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label, canonical, scale
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.trainingset import TrainingSet

# Streams of random numbers; each with the seed and counters of its own.
SPLIT, ORDER, AUGMENT, VALIDATION, WEIGHTS, DROPOUT, CALIBRATION, BASIS = range(8)
BLOCK = 64  # rows that stay together when a file is larger than memory


class Batch(NamedTuple):
    """What the network sees in a step.

    Attributes
    ----------
    flux : Tensor of float32, shape (batch, n_pixel)
    scaled : Tensor of float32, shape (batch, n_label)
        Labels scaled to 0-1; NaN = not known.
    """

    flux: Tensor
    scaled: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(self.flux.to(device, non_blocking=True), self.scaled.to(device, non_blocking=True))


class Source(Protocol):
    """Where spectra come from before augmentation."""

    def draw(self, position: int, n: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return flux, scaled labels and sigma of the spectra `position` to `position + n` of the run."""
        ...


def generator(device: torch.device, seed: int, *stream: int) -> torch.Generator:
    """Return a generator for one purpose: the same seed and stream give the same numbers."""
    state = np.random.SeedSequence((seed, *stream)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class FileSource:
    """Spectra of training sets on one grid, each epoch in a new order.

    Parameters
    ----------
    sets : sequence of TrainingSet
    rows : array of int
        Which spectra to draw, counted through all sets.
    labels : sequence of Label
    seed : int
    memory : float
        Bytes up to which the flux is held in memory; more is memory-mapped, and drawn in
        shuffled blocks so that the disk reads runs of rows.
    device : torch.device
        Where flux held in memory lives.
    balance : str, optional
        Name of a label to draw evenly over its range.
    """

    def __init__(
        self,
        sets: Sequence[TrainingSet],
        rows: NDArray[np.int64],
        labels: Sequence[Label],
        seed: int,
        memory: float = 4e9,
        device: torch.device | None = None,
        balance: str | None = None,
    ) -> None:
        self.seed = seed
        self.rows = rows
        self.n = len(rows)
        self.device = device or torch.device("cpu")
        self._images = [part.flux for part in sets]
        self._sigmas = [part.sigma for part in sets]
        self._first = np.cumsum([0, *(len(part) for part in sets)])
        scaled = scale(np.concatenate([pick_labels(part, labels) for part in sets])[rows], labels)
        self.scaled = torch.as_tensor(scaled, dtype=torch.float32, device=self.device)
        self.in_memory = 4.0 * self.n * sets[0].grid.n_pixel <= memory
        self._flux = self._load(self._images) if self.in_memory else None
        with_sigma = all(part.sigma is not None for part in sets)
        self._sigma = self._load(self._sigmas) if with_sigma and self.in_memory else None
        self._read_sigma = with_sigma and not self.in_memory
        self._weights = _even_weights(scaled, labels, balance)
        self._order = functools.lru_cache(maxsize=2)(self._make_order)

    def __len__(self) -> int:
        return self.n

    def draw(self, position: int, n: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return flux, scaled labels and sigma of the spectra `position` to `position + n` of the run."""
        chosen = []
        while n > 0:
            epoch, offset = divmod(position, self.n)
            part = self._order(epoch)[offset : offset + n]
            chosen.append(part)
            position, n = position + len(part), n - len(part)
        return self.take(torch.cat(chosen))

    def take(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return flux, scaled labels and sigma of some spectra, counted within `rows`."""
        if self._flux is not None:
            index = index.to(self.device)
            sigma = None if self._sigma is None else self._sigma[index]
            return self._flux[index], self.scaled[index], sigma
        rows = self.rows[index.numpy()]
        sigma = self._gather(self._sigmas, rows) if self._read_sigma else None
        return self._gather(self._images, rows), self.scaled[index], sigma

    def _load(self, images: Sequence[NDArray[np.floating] | None]) -> Tensor:
        return self._gather(images, self.rows).to(self.device)

    def _gather(self, images: Sequence[NDArray[np.floating] | None], rows: NDArray[np.int64]) -> Tensor:
        """Read rows, counted through all sets, as float32."""
        first = images[0]
        assert first is not None
        result = np.empty((len(rows), first.shape[1]), dtype=np.float32)
        part = np.searchsorted(self._first, rows, side="right") - 1
        for i, image in enumerate(images):
            here = np.flatnonzero(part == i)
            # In order of the file, and a few at a time: a fancy index copies what it picks.
            for chosen in np.array_split(here, max(1, len(here) // 4096)):
                if image is not None and len(chosen):
                    result[chosen] = image[rows[chosen] - self._first[i]]
        return torch.from_numpy(result)

    def _make_order(self, epoch: int) -> Tensor:
        random = generator(torch.device("cpu"), self.seed, ORDER, epoch)
        if self._weights is not None:
            return torch.multinomial(self._weights, self.n, replacement=True, generator=random)
        if self.in_memory:
            return torch.randperm(self.n, generator=random)
        n_block = -(-self.n // BLOCK)
        start = BLOCK * torch.randperm(n_block, generator=random)
        order = (start[:, None] + torch.arange(BLOCK)).flatten()  # (block * row)
        order = order[order < self.n]
        # Shuffle inside windows of many blocks: a batch then holds rows of many places.
        window = 256 * BLOCK
        mixed = [chunk[torch.randperm(len(chunk), generator=random)] for chunk in torch.split(order, window)]
        return torch.cat(mixed)


class Batches(Dataset[Batch]):
    """The batch of every step of a run.

    Parameters
    ----------
    source : Source
    augmentation : Augmentation or None
    stages : sequence of config.Stage
    seed : int
    rank, world : int
        This process and their number: each makes its share of every batch.
    """

    def __init__(
        self,
        source: Source,
        augmentation: Augmentation | None,
        stages: Sequence[config.Stage],
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.source, self.augmentation, self.seed = source, augmentation, seed
        self.rank, self.world = rank, world
        self._first_step = np.cumsum([0, *(stage.steps for stage in stages)])
        self._sizes = [stage.batch_size for stage in stages]
        self._first_spectrum = np.cumsum([0, *(stage.steps * stage.batch_size for stage in stages)])
        for size in self._sizes:
            if size % world:
                raise TrainingError(f"a batch of {size} spectra cannot be shared evenly by {world} processes")

    def __len__(self) -> int:
        return int(self._first_step[-1])

    def __getitem__(self, step: int) -> Batch:
        stage = int(np.searchsorted(self._first_step, step, side="right")) - 1
        size = self._sizes[stage] // self.world
        position = int(self._first_spectrum[stage]) + (step - int(self._first_step[stage])) * self._sizes[stage]
        flux, scaled, sigma = self.source.draw(position + self.rank * size, size)
        if self.augmentation is not None:
            random = generator(flux.device, self.seed, AUGMENT, step, self.rank)
            flux = self.augmentation(flux, random, sigma).flux
        return Batch(flux, scaled)

    def loader(self, first: int, settings: config.Loader, pin: bool) -> Iterator[Batch]:
        """Return the batches from step `first` on, made here or by workers."""
        if settings.workers == 0:
            return (self[step] for step in range(first, len(self)))
        return iter(
            DataLoader(
                self,
                batch_size=None,
                sampler=range(first, len(self)),
                num_workers=settings.workers,
                prefetch_factor=settings.prefetch,
                pin_memory=pin,
                worker_init_fn=_ignore_interrupt,
            )
        )


def _ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C to the training process, which saves before it stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def pick_labels(training_set: TrainingSet, labels: Sequence[Label]) -> NDArray[np.float64]:
    """Return the columns of some labels, shape (n, n_label).

    Raises
    ------
    TrainingError
        If the training set lacks one.
    """
    names = [canonical(name) for name in training_set.label_names]
    missing = [label.name for label in labels if canonical(label.name) not in names]
    if missing:
        raise TrainingError(
            f"{training_set.path}: no label {', '.join(missing)}; it has {', '.join(training_set.label_names)}"
        )
    return training_set.labels[:, [names.index(canonical(label.name)) for label in labels]]


def split_by_star(
    ids: NDArray[np.generic], n_validation: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into training and validation so that no star is in both.

    Parameters
    ----------
    ids : array, shape (n,)
        Spectra with the same id are of the same star.
    n_validation : int
        Spectra wanted for validation; the last star may bring a few more.
    seed : int

    Returns
    -------
    training, validation : arrays of int
        Row numbers, ascending.
    """
    _, star = np.unique(ids, return_inverse=True)
    random = np.random.default_rng((seed, SPLIT))
    shuffled = random.permutation(star.max() + 1)
    spectra = np.cumsum(np.bincount(star)[shuffled])
    n_star = int(np.searchsorted(spectra, n_validation)) + 1 if n_validation else 0
    validates = np.isin(star, shuffled[:n_star])
    return np.flatnonzero(~validates), np.flatnonzero(validates)


def _even_weights(scaled: NDArray[np.float64], labels: Sequence[Label], name: str | None) -> Tensor | None:
    """Weigh each spectrum by one over the number of spectra in its twentieth of the label's range."""
    if name is None:
        return None
    names = [canonical(label.name) for label in labels]
    if canonical(name) not in names:
        raise TrainingError(f"data.balance: no label {name}; the network infers {', '.join(names)}")
    column = np.nan_to_num(scaled[:, names.index(canonical(name))], nan=0.5)
    n_bin = 20
    place = np.clip((column * n_bin).astype(int), 0, n_bin - 1)
    return torch.as_tensor(1.0 / np.bincount(place, minlength=n_bin)[place])
