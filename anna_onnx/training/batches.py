"""Batches: which spectra a step sees and what is done to them, a pure function of the seed and the step.

Because nothing else enters, a run that goes on from a checkpoint sees what it would have
seen, and batches may be made in the loop or in any number of loader workers.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anna_onnx import config
from anna_onnx.arrays import FloatArray, IntArray
from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label, are_known, are_same_unit, canonical, scale
from anna_onnx.readers.assembly import are_measured
from anna_onnx.training.augmentation import Augmentation, Augmented, Pixels
from anna_onnx.training.gridsource import GridSource
from anna_onnx.trainingset import TrainingSet

# Streams of random numbers; each with the seed and counters of its own.
# Zeros at the end of a seed do not count (numpy's SeedSequence): no stream may be used both with and without a counter.
SPLIT, ORDER, AUGMENT, VALIDATION, WEIGHTS, DROPOUT, CALIBRATION, BASIS, STARS = range(9)
VALIDATION_STARS, CALIBRATION_STARS, REST_STARS, NOVELTY_STARS, NOVELTY, CLEAN = range(9, 15)
GOLDEN = 0x9E3779B97F4A7C15  # odd: multiples of it are all different, modulo any power of 2
BLOCK = 64  # rows that stay together when a file is larger than memory


class Batch(NamedTuple):
    """What the network sees in a step.

    Attributes
    ----------
    flux : Tensor of float32, shape (batch, n_pixel)
        NaN where a pixel is missing.
    scaled : Tensor of float32, shape (batch, n_label)
        Labels scaled to 0-1; NaN = not known.
    weight : Tensor of float32, shape (batch, n_label), or None
        Of each label in the cost; None: all 1.
    """

    flux: Tensor
    scaled: Tensor
    weight: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        weight = None if self.weight is None else self.weight.to(device, non_blocking=True)
        return Batch(self.flux.to(device, non_blocking=True), self.scaled.to(device, non_blocking=True), weight)


class Drawn(NamedTuple):
    """Spectra before augmentation: as in `Batch`, and what is known besides.

    Attributes
    ----------
    sigma : Tensor, shape (batch, n_pixel), or None
        Standard deviation of each pixel.
    velocity : Tensor of float32, shape (batch,), or None
        Radial velocities, km/s.
    """

    flux: Tensor
    scaled: Tensor
    weight: Tensor | None = None
    sigma: Tensor | None = None
    velocity: Tensor | None = None

    def to(self, device: torch.device) -> Drawn:
        """Return them on a device."""
        return self._each(lambda part: part.to(device))

    def split(self, n: int) -> list[Drawn]:
        """Return them in parts of n."""
        return [self._each(itemgetter(slice(i, i + n))) for i in range(0, len(self.flux), n)]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Drawn:
        return Drawn._make(None if part is None else change(part) for part in self)

    def augmented(self, augmentation: Augmentation, random: torch.Generator) -> Augmented:
        """Return them after augmentation."""
        return augmentation(self.flux, random, self.sigma, self.velocity)


class Source(Protocol):
    """Where spectra come from before augmentation."""

    def draw(self, position: int, n: int) -> Drawn:
        """Return the spectra `position` to `position + n` of the run: a pure function of the seed and both."""
        ...

    def at_rest(self, n: int) -> Tensor:
        """Return about n spectra at rest, where their velocities are known, without augmentation."""
        ...


def generator(device: torch.device, seed: int, *stream: int) -> torch.Generator:
    """Return a generator for one purpose: the same seed and stream give the same numbers.

    For a purpose with very many generators see `_apart`.
    """
    state = np.random.SeedSequence((seed, *stream)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


def _apart(first_seed: int, number: int, device: torch.device) -> torch.Generator:
    """Return the generator of a number of a stream, another one for each of 2**32 numbers.

    Of a seed torch takes 32 bits on the processor: seeds drawn at random, as by `generator`, would come again after
    some ten thousands. That would also take several times as long.
    """
    return torch.Generator(device).manual_seed((first_seed + GOLDEN * number) % 2**63)


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
    label_errors : bool
        Weigh each label by its error, see `weigh`.
    velocity_column : str, optional
        Of ``aux``, with radial velocities in km/s; without it rv, where every set has one.

    Raises
    ------
    TrainingError
        If a set lacks a column that is asked for, or has a label in another unit.
    """

    def __init__(
        self,
        sets: Sequence[TrainingSet],
        rows: IntArray,
        labels: Sequence[Label],
        seed: int,
        memory: float = 4e9,
        device: torch.device | None = None,
        balance: str | None = None,
        label_errors: bool = False,
        velocity_column: str | None = None,
    ) -> None:
        self.seed = seed
        self.rows = rows
        self.n = len(rows)
        self.device = device or torch.device("cpu")
        self._sets = sets
        self._first = np.cumsum([0, *(len(part) for part in sets)])
        scaled = scale(np.concatenate([pick_labels(part, labels) for part in sets])[rows], labels)
        self.scaled = torch.as_tensor(scaled, dtype=torch.float32, device=self.device)
        self._weight = None
        if label_errors:
            error = np.concatenate([pick_errors(part, labels) for part in sets])[rows]
            self._weight = torch.as_tensor(weigh(error), dtype=torch.float32, device=self.device)
        self._with_sigma = all(part.sigma is not None for part in sets)
        self.in_memory = 4.0 * self.n * sets[0].grid.n_pixel * (1 + self._with_sigma) <= memory
        self._flux: Tensor | None = None
        self._sigma: Tensor | None = None
        if self.in_memory:
            self._flux, self._sigma = self._read(rows)
        self._balance = _even_weights(scaled, labels, balance)
        self._orders: dict[int, Tensor] = {}
        velocity = _velocities(sets, velocity_column)
        self._velocity = None
        if velocity is not None:
            self._velocity = torch.as_tensor(velocity[rows], dtype=torch.float32, device=self.device)

    def __len__(self) -> int:
        return self.n

    def draw(self, position: int, n: int) -> Drawn:
        """Return the spectra `position` to `position + n` of the run."""
        chosen = []
        while n > 0:
            epoch, offset = divmod(position, self.n)
            part = self._order(epoch)[offset : offset + n]
            chosen.append(part)
            position, n = position + len(part), n - len(part)
        return self.take(torch.cat(chosen))

    def take(self, index: Tensor) -> Drawn:
        """Return some spectra, counted within `rows`."""
        index = index.to(self.device)
        # index_select copies whole rows, where brackets go number by number.
        scaled = self.scaled.index_select(0, index)
        weight = None if self._weight is None else self._weight.index_select(0, index)
        velocity = None if self._velocity is None else self._velocity.index_select(0, index)
        if self._flux is not None:
            sigma = None if self._sigma is None else self._sigma.index_select(0, index)
            return Drawn(self._flux.index_select(0, index), scaled, weight, sigma, velocity)
        flux, sigma = self._read(self.rows[index.cpu().numpy()])
        return Drawn(flux, scaled, weight, sigma, velocity)

    def at_rest(self, n: int) -> Tensor:
        """Return n spectra at most, shifted back by their velocities where the training set has them."""
        flux, *_, velocity = self.take(torch.as_tensor(evenly(self.n, n)))
        if velocity is None:
            return flux
        pixels = Pixels(torch.as_tensor(self._sets[0].grid.wavelength), flux.device, float(velocity.abs().max()))
        return pixels.shift(flux, -velocity)

    def _read(self, rows: IntArray) -> tuple[Tensor, Tensor | None]:
        """Read flux and sigma of rows, counted through all sets, NaN where a pixel is masked or was not measured."""
        flux = np.empty((len(rows), self._sets[0].grid.n_pixel), dtype=np.float32)
        sigma = np.empty_like(flux) if self._with_sigma else None
        part = np.searchsorted(self._first, rows, side="right") - 1
        for i, spectra in enumerate(self._sets):
            here = np.flatnonzero(part == i)
            # A few at a time: a fancy index copies what it picks.
            for chosen in np.array_split(here, max(1, len(here) // 4096)):
                own = rows[chosen] - self._first[i]
                flux[chosen] = spectra.read_flux(own)
                if sigma is not None and spectra.sigma is not None:
                    found = spectra.sigma[own]
                    measured = are_measured(found, flux[chosen]) & ~np.isnan(flux[chosen])
                    sigma[chosen] = np.where(measured, found, np.nan)
        known = None if sigma is None else torch.from_numpy(sigma).to(self.device)
        return torch.from_numpy(flux).to(self.device), known

    def _order(self, epoch: int) -> Tensor:
        """Return the order of the spectra in an epoch; the last two are kept."""
        if epoch not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old == epoch - 1}
            self._orders[epoch] = self._make_order(epoch)
        return self._orders[epoch]

    def _make_order(self, epoch: int) -> Tensor:
        random = generator(torch.device("cpu"), self.seed, ORDER, epoch)
        if self._balance is not None:
            return torch.multinomial(self._balance, self.n, replacement=True, generator=random)
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


class GridStream:
    """Spectra drawn from a grid when they are needed, none of which comes twice.

    Parameters
    ----------
    source : GridSource
    labels : sequence of Label
        Those to return, in this order.
    seed, stream : int
        Streams of other numbers hold other stars.
    beyond : GridSource, optional
        Of the same grid continued, from which some of the stars come.
    share : float
        How many of them; 0 without `beyond`.
    """

    def __init__(
        self,
        source: GridSource,
        labels: Sequence[Label],
        seed: int,
        stream: int = STARS,
        beyond: GridSource | None = None,
        share: float = 0.0,
    ) -> None:
        self.source, self.seed = source, seed
        self.beyond, self.share = beyond, share
        self._columns = source.columns(labels)
        self._first_seed = generator(torch.device("cpu"), seed, stream).initial_seed()
        self._low = torch.tensor([label.low for label in labels], dtype=source.dtype, device=source.device)
        self._span = torch.tensor([label.span for label in labels], dtype=source.dtype, device=source.device)

    def draw(self, position: int, n: int) -> Drawn:
        """Return the n spectra of the run from `position` on; in portions of another size they are other stars."""
        # Numbers from the processor: the same stars on every device.
        random = _apart(self._first_seed, position, torch.device("cpu"))
        # Their share of the whole run, however small its batches are.
        n_beyond = int(self.share * (position + n)) - int(self.share * position)
        flux, values, rv = self.source.draw(n - n_beyond, random)
        if self.beyond:
            parts = zip((flux, values, rv), self.beyond.draw(n_beyond, random), strict=True)
            flux, values, rv = (torch.cat(part) for part in parts)
        scaled = ((values[:, self._columns] - self._low) / self._span).float()
        return Drawn(flux, scaled, velocity=rv.float())

    def at_rest(self, n: int) -> Tensor:
        """Draw spectra of no radial velocity."""
        random = generator(torch.device("cpu"), self.seed, REST_STARS)
        return self.source.draw(n, random, at_rest=True)[0]


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
        self.source, self.augmentation = source, augmentation
        self.rank, self.world = rank, world
        self._first_seed = generator(torch.device("cpu"), seed, AUGMENT).initial_seed()
        self._first_step = list(accumulate((stage.steps for stage in stages), initial=0))
        self._sizes = [stage.batch_size for stage in stages]
        self._first_spectrum = list(accumulate((stage.steps * stage.batch_size for stage in stages), initial=0))
        for size in self._sizes:
            if size % world:
                raise TrainingError(f"a batch of {size} spectra cannot be shared evenly by {world} processes")

    def __len__(self) -> int:
        return self._first_step[-1]

    def __getitem__(self, step: int) -> Batch:
        stage = bisect_right(self._first_step, step) - 1
        size = self._sizes[stage] // self.world
        position = self._first_spectrum[stage] + (step - self._first_step[stage]) * self._sizes[stage]
        drawn = self.source.draw(position + self.rank * size, size)
        flux = drawn.flux
        if self.augmentation is not None:
            flux = drawn.augmented(self.augmentation, self._random_for(step, flux.device)).flux
        return Batch(flux, drawn.scaled, drawn.weight)

    def _random_for(self, step: int, device: torch.device) -> torch.Generator:
        """Return this process's generator for a step."""
        return _apart(self._first_seed, step * self.world + self.rank, device)

    def loader(self, first: int, settings: config.Loader, pin: bool) -> Iterator[Batch]:
        """Return the batches from step `first` on, made here or by workers.

        Raises
        ------
        TrainingError
            If a worker dies.
        """
        if settings.workers == 0:
            return (self[step] for step in range(first, len(self)))
        return self._from_workers(first, settings, pin)

    def _from_workers(self, first: int, settings: config.Loader, pin: bool) -> Iterator[Batch]:
        # Forked workers share the flux in memory with this process; others get a copy each.
        fork = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, len(self)),
            num_workers=settings.workers,
            prefetch_factor=settings.prefetch,
            pin_memory=pin,
            worker_init_fn=_ignore_interrupt,
            multiprocessing_context="fork" if fork else None,
        )
        try:
            yield from loader
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                "a loader worker died, killed perhaps for want of memory: set loader.workers = 0, or fewer, "
                "or a smaller data.memory, and go on with --resume"
            ) from error


def _ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C to the training process, which saves before it stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def evenly(n: int, most: int) -> IntArray:
    """Return rows, `most` at the most, spread over n that may be sorted."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def pick_labels(training_set: TrainingSet, labels: Sequence[Label]) -> FloatArray:
    """Return the columns of some labels, shape (n, n_label), NaN where one is not known.

    Raises
    ------
    TrainingError
        If the training set lacks one, or has it in another unit.
    """
    names = [canonical(name) for name in training_set.label_names]
    missing = [label.name for label in labels if canonical(label.name) not in names]
    if missing:
        raise TrainingError(
            f"{training_set.path}: no label {', '.join(missing)}; it has {', '.join(training_set.label_names)}"
        )
    columns = [names.index(canonical(label.name)) for label in labels]
    for label, column in zip(labels, columns, strict=True):
        stated = training_set.label_units[column]
        if stated and label.unit and not are_same_unit(stated, label.unit):
            raise TrainingError(f"{training_set.path}: {label.name} is in '{stated}', needed '{label.unit}'")
    values = training_set.labels[:, columns]
    return np.where(are_known(values), values, np.nan)


def pick_errors(training_set: TrainingSet, labels: Sequence[Label]) -> FloatArray:
    """Return the standard deviations of some labels, shape (n, n_label), from the columns ``aux/e_<label>``.

    NaN where one is not known, as it is not if it is not above zero.

    Raises
    ------
    TrainingError
        If the training set has none.
    """
    columns = {
        canonical(name.removeprefix("e_")): np.where((values > 0) & (values < np.inf), values, np.nan)
        for name, values in training_set.aux.items()
        if name[:2] == "e_" and values.dtype.kind in "fiu"
    }
    known = {name for name, values in columns.items() if not np.isnan(values).all()}
    missing = [f"aux/e_{label.name}" for label in labels if canonical(label.name) not in known]
    if missing:
        raise TrainingError(
            f"{training_set.path}: no {', '.join(missing)} with numbers above zero, needed for data.label_errors"
        )
    return np.stack([columns[canonical(label.name)] for label in labels], axis=1).astype(np.float64)


def weigh(error: FloatArray) -> FloatArray:
    """Return the weights of labels with errors of shape (n, n_label).

    One over the variance, to which the median variance is added: labels far better than most
    would otherwise be all that counts. The mean weight of each label is 1; an unknown error gets it.
    """
    variance = error**2
    weight = 1 / (variance + np.nanmedian(variance, axis=0))
    result: FloatArray = np.nan_to_num(weight / np.nanmean(weight, axis=0), nan=1.0)
    return result


def split_by_star(ids: NDArray[np.generic], n_validation: int, seed: int) -> tuple[IntArray, IntArray]:
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


def _velocities(sets: Sequence[TrainingSet], column: str | None) -> FloatArray | None:
    """Return the radial velocities of all spectra, km/s, 0 where one is not known; None where there are none."""
    stated = [(part, part.radial_velocity(column)) for part in sets]
    known = [velocity for _, velocity in stated if velocity is not None]
    if len(known) == len(sets):
        return np.nan_to_num(np.concatenate(known))
    if column is None:
        return None
    missing = next(part for part, velocity in stated if velocity is None)
    has = ", ".join(missing.aux) or "nothing"
    raise TrainingError(
        f"{missing.path}: no numbers in aux/{column}, which data.radial_velocity_column names; aux holds {has}"
    )


def _even_weights(scaled: FloatArray, labels: Sequence[Label], name: str | None) -> Tensor | None:
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
