"""Batches: every spectrum once an epoch; the same from memory, from disk and from workers."""

from __future__ import annotations

import os
import pickle
import signal
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label
from anna_onnx.legacy import hdf5_to_binary, open_training_set
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.batches import Batches, FileSource, GridStream, split_by_star, weigh

LABELS = (Label("teff", 3000, 6000), Label("logg", 1, 5))
ALL_MEMORY, NO_MEMORY = 4e9, 1.0


def source_of(*paths, rows=None, memory=ALL_MEMORY, seed=1, **settings):
    sets = [open_training_set(path, ["teff", "logg"]) for path in paths]
    rows = np.arange(sum(map(len, sets))) if rows is None else rows
    return FileSource(sets, rows, LABELS, seed, memory, **settings)


def batches_of(source, steps=8, batch_size=20, augmentation=None, seed=1, **process):
    return Batches(source, augmentation, [config.Stage(steps=steps, batch_size=batch_size)], seed, **process)


def in_order(tensor):
    """Return rows sorted, to compare sets of spectra."""
    return sorted(map(tuple, tensor.tolist()))


@pytest.mark.parametrize("memory", [ALL_MEMORY, NO_MEMORY])
def test_every_spectrum_comes_once_in_an_epoch_and_in_a_new_order(tmp_path, make_set, memory):
    source = source_of(make_set(tmp_path / "a.h5", 130), memory=memory)
    first, second = source.draw(0, 130), source.draw(130, 130)
    assert in_order(first.scaled) == in_order(second.scaled) == in_order(source.scaled)
    assert not torch.equal(first.scaled, second.scaled)


def test_a_batch_may_reach_into_the_next_epoch(tmp_path, make_set):
    source = source_of(make_set(tmp_path / "a.h5", 30))
    whole = source.draw(0, 60).scaled
    assert torch.equal(source.draw(25, 10).scaled, whole[25:35])
    assert len(source.draw(5, 100).scaled) == 100


def test_large_sets_are_shuffled_across_blocks(tmp_path, make_set, toy_labels):
    labels = np.sort(toy_labels(3000), axis=0)
    source = source_of(make_set(tmp_path / "a.h5", labels=labels), memory=NO_MEMORY)
    teff = source.draw(0, 3000).scaled[:, 0].reshape(30, 100)
    # Were a batch one stretch of the file, its labels would be nearly the same.
    assert float(teff.std(dim=1).min()) > 0.15


def test_flux_and_labels_stay_together(tmp_path, make_set, toy_flux):
    drawn = source_of(make_set(tmp_path / "a.h5", 100)).draw(37, 50)
    physical = drawn.scaled.numpy() * [3000, 4] + [3000, 1]
    assert drawn.flux.numpy() == pytest.approx(toy_flux(physical), abs=1e-5)


def test_a_spectrum_keeps_its_sigma_and_velocity_in_parts_too(tmp_path, make_set):
    drawn = source_of(make_set(tmp_path / "a.h5", 50)).draw(0, 25)._replace(velocity=torch.arange(25.0))
    parts = drawn.split(10)
    assert [len(part.flux) for part in parts] == [10, 10, 5]
    assert parts[2].velocity.tolist() == [20, 21, 22, 23, 24]
    assert torch.equal(parts[1].scaled, drawn.scaled[10:20])
    assert parts[0].weight is None


def test_from_disk_a_row_is_what_it_is_in_memory(tmp_path, make_set):
    rng = np.random.default_rng(1)
    sigma, mask = rng.random((90, 48)), rng.random((90, 48)) < 0.1
    path = make_set(tmp_path / "a.h5", 90, sigma=sigma, mask=mask)
    rows = np.flatnonzero(rng.random(90) < 0.5)
    memory, disk = (source_of(path, rows=rows, memory=size) for size in (ALL_MEMORY, NO_MEMORY))
    assert memory.in_memory
    assert not disk.in_memory
    index = torch.randperm(len(rows))
    for one, other in zip(memory.take(index), disk.take(index), strict=True):
        assert (one is None and other is None) or torch.equal(one.nan_to_num(-9), other.nan_to_num(-9))


def test_masked_pixels_are_missing(tmp_path, make_set):
    mask = np.random.default_rng(1).random((20, 48)) < 0.1
    drawn = source_of(make_set(tmp_path / "a.h5", 20, mask=mask)).take(torch.arange(20))
    assert np.array_equal(drawn.flux.isnan().numpy(), mask)


@pytest.mark.parametrize("memory", [ALL_MEMORY, NO_MEMORY])
def test_wild_pixels_are_missing_and_their_errors_too(tmp_path, make_set, toy_flux, toy_labels, memory):
    labels = toy_labels(20)
    flux, sigma, mask = toy_flux(labels), np.full((20, 48), 0.01), np.zeros((20, 48))
    flux[0, 0], flux[1, 1], flux[2, 2], mask[3, 3] = np.inf, -np.inf, 1e38, 1
    sigma[4, :6] = np.inf, 1e20, 0, -1, np.nan, 0.02
    drawn = source_of(
        make_set(tmp_path / "a.h5", labels=labels, flux=flux, sigma=sigma, mask=mask), memory=memory
    ).take(torch.arange(20))
    missing = [[i, i] for i in range(4)]
    assert drawn.flux.isnan().nonzero().tolist() == missing
    assert drawn.sigma.isnan().nonzero().tolist() == missing + [[4, i] for i in range(5)]
    assert float(drawn.sigma[4, 5]) == pytest.approx(0.02)


def test_several_files_make_one_set(tmp_path, make_set):
    paths = [make_set(tmp_path / f"{i}.h5", n, seed=i) for i, n in enumerate((40, 7, 53))]
    whole = source_of(*paths)
    assert whole.n == 100
    each = torch.cat([source_of(path).take(torch.arange(n)).flux for path, n in zip(paths, (40, 7, 53), strict=True)])
    assert torch.equal(whole.take(torch.arange(100)).flux, each)
    assert in_order(whole.draw(0, 100).scaled) == in_order(whole.scaled)


def test_a_legacy_file_gives_the_same_spectra(tmp_path, make_set):
    path = make_set(tmp_path / "a.h5", 30)
    hdf5_to_binary(path, tmp_path / "a.bin")
    assert torch.equal(source_of(tmp_path / "a.bin").draw(0, 30).flux, source_of(path).draw(0, 30).flux)


def test_no_star_is_in_both_training_and_validation():
    ids = np.repeat(np.arange(60), 3)
    training, validation = split_by_star(ids, 30, seed=1)
    assert set(ids[training]).isdisjoint(ids[validation])
    assert len(training) + len(validation) == 180
    assert 30 <= len(validation) <= 32


def test_the_split_depends_on_the_seed_only():
    ids = np.random.default_rng(1).integers(0, 50, 200).astype(str)
    first, again, other = (split_by_star(ids, 40, seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(("column", "asked"), [("rv", None), ("dummy", "dummy")])
def test_spectra_are_brought_to_rest_by_the_column_of_velocities(tmp_path, make_set, column, asked):
    labels = np.tile([4500.0, 3.0], (3, 1))
    rest = make_set(tmp_path / "rest.h5", labels=labels)
    grid = open_training_set(rest).grid
    depth = 1 - open_training_set(rest).flux[0]
    velocity = np.array([-60.0, np.nan, 60.0])
    moved = [
        1 - np.interp(grid.wavelength / (1 + v / 299792.458), grid.wavelength, depth) for v in np.nan_to_num(velocity)
    ]
    source = source_of(make_set(tmp_path / "a.h5", labels=labels, flux=np.array(moved), aux={column: velocity}),
                       velocity_column=asked)  # fmt: skip
    back = source.at_rest(3)[:, 8:-8].numpy()
    assert back == pytest.approx(np.tile(1 - depth[8:-8], (3, 1)), abs=0.03)
    assert np.abs(np.array(moved)[0, 8:-8] - 1 + depth[8:-8]).max() > 0.2


def test_a_column_of_velocities_that_is_not_there_is_named(tmp_path, make_set):
    with pytest.raises(TrainingError, match=r"no numbers in aux/dummy, which data\.radial_velocity_column names"):
        source_of(make_set(tmp_path / "a.h5"), velocity_column="dummy")


def test_balance_draws_a_label_evenly(tmp_path, make_set, toy_labels):
    labels = toy_labels(4000)
    labels[:, 0] = 3000 + 3000 * np.random.default_rng(2).beta(5, 2, 4000)  # mostly hot
    drawn = source_of(make_set(tmp_path / "a.h5", labels=labels), balance="teff").draw(0, 4000)
    even = np.histogram(drawn.scaled[:, 0], bins=10, range=(0.2, 1.0))[0]
    assert even.std() / even.mean() < 0.2
    with pytest.raises(TrainingError, match="no label mass"):
        source_of(tmp_path / "a.h5", balance="mass")


def test_label_errors_become_weights(tmp_path, make_set):
    error = np.where(np.arange(100) < 50, 10.0, 100.0)
    error[7] = np.nan
    path = make_set(tmp_path / "a.h5", 100, aux={"e_teff": error, "e_logg": np.full(100, 0.1)})
    weight = source_of(path, label_errors=True).take(torch.arange(100)).weight
    assert weight.nanmean(0).tolist() == pytest.approx([1, 1])
    assert weight[0, 0] > 1 > weight[99, 0]
    assert weight[7, 0] == 1
    assert weight[:, 1].tolist() == pytest.approx([1] * 100)
    with pytest.raises(TrainingError, match="no aux/e_teff, aux/e_logg"):
        source_of(make_set(tmp_path / "b.h5", 5), label_errors=True)


@pytest.mark.parametrize("unknown", [0.0, -9999.0, np.inf, np.nan])
def test_errors_that_are_not_above_zero_are_not_known(tmp_path, make_set, unknown):
    error = np.where(np.arange(100) % 5 < 3, unknown, 10.0)
    aux = {"e_teff": error, "e_logg": np.full(100, 0.1)}
    weight = source_of(make_set(tmp_path / "a.h5", 100, aux=aux), label_errors=True).take(torch.arange(100)).weight
    assert weight.flatten().tolist() == pytest.approx([1] * 200)
    nothing = make_set(tmp_path / "b.h5", 100, aux=aux | {"e_teff": np.full(100, unknown)})
    with pytest.raises(TrainingError, match=r"b\.h5: no aux/e_teff with numbers above zero, needed for"):
        source_of(nothing, label_errors=True)


def test_weights_are_inverse_variances_with_the_median_added():
    error = np.array([[1.0], [2.0], [3.0]])
    assert weigh(error)[:, 0] / weigh(error)[1, 0] == pytest.approx([8 / 5, 1, 8 / 13])


@pytest.mark.parametrize("unknown", [np.inf, -np.inf, -9999.0, -999.0])
def test_a_label_that_stands_for_none_is_not_known(tmp_path, make_set, toy_labels, unknown):
    labels = toy_labels(10)
    labels[3, 1] = unknown
    scaled = source_of(make_set(tmp_path / "a.h5", labels=labels)).scaled
    assert scaled.isnan().nonzero().tolist() == [[3, 1]]


def test_a_label_in_another_unit_is_refused(tmp_path, make_set):
    path = make_set(tmp_path / "a.h5", 5)  # teff in K
    with pytest.raises(TrainingError, match=r"a\.h5: teff is in 'K', needed 'kK'"):
        FileSource([open_training_set(path)], np.arange(5), [Label("teff", 3, 6, "kK")], 1)


def test_a_label_that_is_not_there_is_named(tmp_path, make_set):
    path = make_set(tmp_path / "a.h5", 5)
    with pytest.raises(TrainingError, match="no label feh; it has teff, logg"):
        FileSource([open_training_set(path)], np.arange(5), [Label("feh", 0, 1)], 1)


class FirstNumbers:
    """Stands in for a grid: its spectra are the first random numbers that it gets."""

    label_names, dtype, device = ("teff",), torch.float64, torch.device("cpu")

    def columns(self, labels):
        return [0]

    def draw(self, n, random, at_rest=False):
        first = torch.rand(n, 1, generator=random, dtype=torch.float64)
        return first.float(), first, first[:, 0]


@pytest.mark.parametrize("pair", [(4265, 26932), (122623, 125100)])
def test_stars_drawn_from_a_grid_do_not_come_again_in_a_long_run(pair):
    # Steps whose seeds, were they drawn at random, would share the 32 bits that torch takes of one.
    stream = GridStream(FirstNumbers(), [Label("teff", 0, 1)], seed=1)
    first, second = (stream.draw(128 * step, 5).scaled for step in pair)
    assert not torch.equal(first, second)
    assert torch.equal(first, stream.draw(128 * pair[0], 5).scaled)


@pytest.fixture
def augmentation(tmp_path, make_set):
    settings = config.Augmentation(snr=(50, 100), radial_velocity=(-20, 20), vsini=(0, 20), missing_pixels=(0, 0.1))
    return Augmentation(settings, open_training_set(make_set(tmp_path / "grid.h5", 1)).grid)


def test_a_batch_is_a_pure_function_of_seed_and_step(tmp_path, make_set, augmentation):
    source = source_of(make_set(tmp_path / "a.h5", 100))
    batches = batches_of(source, augmentation=augmentation)
    sixth = batches[6]
    again = batches_of(source_of(tmp_path / "a.h5"), augmentation=augmentation)[6]
    other = batches_of(source, augmentation=augmentation, seed=2)[6]
    assert torch.equal(sixth.flux.nan_to_num(), again.flux.nan_to_num())
    assert not torch.equal(sixth.flux.nan_to_num(), other.flux.nan_to_num())


@pytest.mark.parametrize("memory", [ALL_MEMORY, NO_MEMORY])
def test_loader_workers_make_bit_for_bit_the_same_batches(tmp_path, make_set, augmentation, memory):
    batches = batches_of(source_of(make_set(tmp_path / "a.h5", 100), memory=memory), augmentation=augmentation)
    here, one, two = (
        list(batches.loader(2, config.Loader(workers=workers, prefetch=2), pin=False)) for workers in (0, 1, 2)
    )
    assert len(here) == len(one) == len(two) == 6
    for batch, *others in zip(here, one, two, strict=True):
        for other in others:
            assert torch.equal(batch.flux.nan_to_num(-9), other.flux.nan_to_num(-9))
            assert torch.equal(batch.scaled, other.scaled)


def test_batches_can_be_sent_to_a_worker(tmp_path, make_set, augmentation):
    batches = batches_of(source_of(make_set(tmp_path / "a.h5", 40)), augmentation=augmentation)
    batches[1]
    again = pickle.loads(pickle.dumps(batches))
    assert torch.equal(batches[5].flux.nan_to_num(), again[5].flux.nan_to_num())


def test_processes_share_a_batch_without_overlap(tmp_path, make_set):
    source = source_of(make_set(tmp_path / "a.h5", 100))
    whole = batches_of(source)[3].scaled
    shares = [batches_of(source, rank=rank, world=2)[3].scaled for rank in (0, 1)]
    assert torch.equal(torch.cat(shares), whole)


def test_processes_do_not_share_their_noise(tmp_path, make_set, augmentation):
    same = make_set(tmp_path / "a.h5", labels=np.full((40, 2), 3.0))
    first, second = (batches_of(source_of(same), augmentation=augmentation, rank=rank, world=2)[0] for rank in (0, 1))
    assert not torch.equal(first.flux.nan_to_num(), second.flux.nan_to_num())


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path, make_set):
    with pytest.raises(TrainingError, match="20 spectra cannot be shared evenly by 3"):
        batches_of(source_of(make_set(tmp_path / "a.h5", 10)), world=3)


def test_stages_follow_one_another_in_the_stream_of_spectra(tmp_path, make_set):
    source = source_of(make_set(tmp_path / "a.h5", 100))
    stages = [config.Stage(steps=2, batch_size=10), config.Stage(steps=3, batch_size=20)]
    batches = Batches(source, None, stages, seed=1)
    assert [len(batches[i].flux) for i in range(len(batches))] == [10, 10, 20, 20, 20]
    drawn = torch.cat([batches[i].scaled for i in range(5)])
    assert torch.equal(drawn, source.draw(0, 80).scaled)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks its workers")
def test_a_worker_that_dies_is_said_so(tmp_path, make_set):
    class Deadly(Batches):
        def __getitem__(self, step):
            if step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(step)

    source = source_of(make_set(tmp_path / "a.h5", 100))
    batches = Deadly(source, None, [config.Stage(steps=8, batch_size=20)], 1)
    with pytest.raises(TrainingError, match="a loader worker died"):
        list(batches.loader(0, config.Loader(workers=1), pin=False))
