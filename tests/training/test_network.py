"""Networks: their start, their shapes, what they do with missing pixels, and how members combine."""

from __future__ import annotations

import math
import warnings

import pytest

torch = pytest.importorskip("torch")

from anna_onnx import config
from anna_onnx.training.network import (
    NEVER_SEEN,
    Filling,
    Network,
    Pool,
    activation_bytes,
    count_parameters,
    interpolate_missing,
)

SIZES = {
    "aligned": config.Aligned(velocity_step=20.0, width=32, hidden=32, blocks=1),
    "anna": config.Anna(kernel=9, filters=4, fc1=32, fc2=16),
    "compact": config.Compact(width=8, stages=3, dense=16, pooled=4),
    "starnet": config.Starnet(fc1=32, fc2=16),
}


def build(architecture="anna", n_pixel=101, n_label=3, seed=1, **settings):
    torch.manual_seed(seed)
    sizes = settings.pop("sizes", SIZES[architecture])
    return Network(n_pixel, n_label, config.Network(architecture=architecture, sizes=sizes, **settings)).eval()


def test_the_old_network_has_as_many_weights_as_the_manual_says():
    # kernel 45 x 10 and its biases, 10010 x 128, 128 x 128, and an output layer without biases
    network = build(n_pixel=1001, n_label=5, sizes=config.Anna())
    assert count_parameters(network) == 45 * 10 + 10 + 10010 * 128 + 128 + 128 * 128 + 128 + 128 * 5


@pytest.mark.parametrize("architecture", [name for name in SIZES if name != "aligned"])  # which starts with templates
def test_weights_start_as_he_drew_them_and_biases_at_zero(architecture):
    network = build(architecture, n_pixel=400)
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv1d, torch.nn.Linear)):
            n_in = module.weight[0].numel()
            n = module.weight.numel()
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / n_in), rel=5 / math.sqrt(2 * n))
            assert module.bias is None or not module.bias.any()


def test_signals_neither_grow_nor_fade_on_their_way():
    network = build(n_pixel=500, sizes=config.Anna(kernel=45, filters=10, fc1=512, fc2=512))
    mean, _ = network(torch.randn(200, 500))
    assert 0.3 < float(mean.detach().std()) < 3


@pytest.mark.parametrize("architecture", SIZES)
@pytest.mark.parametrize("n_pixel", [64, 101, 1001])
def test_every_layout_takes_any_number_of_pixels(architecture, n_pixel):
    mean, sigma = build(architecture, n_pixel).combine(torch.rand(7, n_pixel))
    assert mean.shape == (7, 3)
    assert sigma is None


def test_the_compact_network_hardly_grows_with_the_pixels():
    small, large = (count_parameters(build("compact", n_pixel, sizes=config.Compact())) for n_pixel in (1000, 100_000))
    assert large == small


@pytest.mark.parametrize("architecture", SIZES)
def test_uncertainty_comes_as_a_positive_sigma(architecture):
    network = build(architecture, uncertainty=True)
    mean, sigma = network.combine(torch.rand(7, 101))
    assert mean.shape == sigma.shape == (7, 3)
    assert (sigma > 0).all()


@pytest.mark.parametrize("architecture", SIZES)
def test_missing_pixels_give_finite_answers(architecture):
    flux = torch.rand(4, 101)
    flux[1, 20:50] = torch.nan
    flux[2] = torch.nan
    assert build(architecture).combine(flux)[0].isfinite().all()


def test_a_missing_pixel_counts_as_the_mean_spectrum():
    network = build()
    mean = torch.rand(101)
    network.inputs.fit(mean, torch.ones(101))
    flux = torch.rand(2, 101)
    flux[0, 30] = mean[30]
    holed = flux.clone()
    holed[0, 30] = torch.nan
    assert torch.equal(network.combine(flux)[0], network.combine(holed)[0])


def test_the_compact_network_knows_a_missing_pixel_from_a_mean_one():
    network = build("compact")
    flux = torch.ones(1, 101)
    holed = flux.clone()
    holed[0, 30:60] = torch.nan
    assert not torch.equal(network.combine(flux)[0], network.combine(holed)[0])


def test_standardising_takes_out_the_mean_and_the_spread():
    network = build()
    flux = 1 + 0.1 * torch.randn(4000, 101)
    network.inputs.fit(flux.mean(0), flux.std(0))
    x = network.inputs(flux)
    assert float(x.mean().abs()) < 1e-4
    assert float(x.std()) == pytest.approx(1.0, abs=0.05)


def test_members_differ_and_the_answer_is_their_mean():
    network = build(members=4)
    flux = torch.rand(5, 101)
    each, _ = network(flux)
    assert each.shape == (4, 5, 3)
    assert float(each.detach().std(dim=0).min()) > 0
    assert network.combine(flux)[0].detach().numpy() == pytest.approx(each.mean(0).detach().numpy(), abs=1e-6)


@pytest.mark.parametrize("architecture", SIZES)
def test_members_asked_together_answer_and_learn_as_they_do_in_turn(architecture):
    networks = [build(architecture, members=3).train() for _ in range(2)]
    flux = 1 + 0.1 * torch.randn(6, 101)
    answers = []
    for network, ask in zip(networks, ("ask_in_turn", "ask_together"), strict=True):
        answers.append(getattr(network, ask)(network.inputs(flux)))
        answers[-1].square().sum().backward()
    assert torch.allclose(*answers, atol=1e-6)
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6 + 1e-5 * float(one.grad.abs().max()))
    for one, other in zip(*(network.buffers() for network in networks), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_sigma_of_an_ensemble_is_that_of_the_mixture():
    network = build(members=3, uncertainty=True)
    flux = torch.rand(5, 101)
    mean, log_sigma = (part.detach() for part in network(flux))
    draws = mean[..., None] + log_sigma.exp()[..., None] * torch.randn(3, 5, 3, 40000)
    expected = draws.movedim(0, -1).flatten(2).std(dim=-1)
    assert network.combine(flux)[1].detach().numpy() == pytest.approx(expected.numpy(), rel=0.02)


def test_dropout_follows_the_keep_probability():
    network = build().train()
    network.set_keep_probability(0.5)
    flux = torch.rand(1, 101)
    assert not torch.equal(network(flux)[0], network(flux)[0])
    network.set_keep_probability(1.0)
    assert torch.equal(network(flux)[0], network(flux)[0])


@pytest.mark.parametrize(("length", "n"), [(32, 8), (33, 8), (7, 7), (100, 3)])
def test_pooling_averages_equal_stretches(length, n):
    x = torch.rand(2, 3, length)
    fine = x.repeat_interleave(n, dim=-1).reshape(2, 3, n, length).mean(-1)
    assert Pool(length, n)(x).numpy() == pytest.approx(fine.numpy(), abs=1e-5)


@pytest.mark.parametrize("architecture", SIZES)
def test_a_network_exports_with_a_free_batch_size(architecture):
    network = build(architecture, uncertainty=True, members=2)
    program = torch.export.export(
        network, (torch.rand(2, 101),), dynamic_shapes={"flux": {0: torch.export.Dim("batch")}}, strict=False
    )
    flux = torch.rand(5, 101)
    flux[0, :10] = torch.nan
    assert torch.equal(program.module()(flux)[0], network(flux)[0])


def test_the_memory_of_a_step_counts_what_the_backward_pass_keeps():
    # One linear layer keeps its input: 101 numbers of 4 bytes a spectrum.
    assert activation_bytes(torch.nn.Linear(101, 3), torch.rand(2, 101)) == 404


WAVELENGTH = torch.linspace(6625, 6825, 1001, dtype=torch.float64)
CENTERS = torch.tensor([6643.6, 6663.4, 6678.0, 6705.1, 6717.7, 6750.2, 6767.8, 6793.0])


def stars(velocity):
    """Return spectra of eight lines of various depths at radial velocities, shape (n, 1001)."""
    moved = CENTERS * (1 + torch.as_tensor(velocity, dtype=torch.float64)[:, None] / 299792.458)
    lines = torch.exp(-0.5 * ((WAVELENGTH - moved[..., None]) / 0.3) ** 2)
    return (1 - (lines * torch.linspace(0.1, 0.5, 8)[:, None]).sum(dim=1)).float()


def aligned_network():
    network = build("aligned", 1001, sizes=config.Aligned())
    network.fit(stars([0.0, 50.0]), stars([0.0]), WAVELENGTH)
    return network


def aligned():
    return aligned_network().members[0]


def test_the_aligned_network_sees_the_mean_spectrum_at_rest_as_zeros_whatever_its_velocity():
    network, seen = aligned_network(), []
    network.members[0].first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(stars([0.0, 60.0, -35.0]))
    assert float(seen[0][:, 30:970].detach().abs().mean()) < 2.0  # spreads have a floor of 1e-4 of the continuum here
    network(stars([0.0, 60.0, -35.0]) + 0.01)
    assert float((seen[1] - seen[0])[:, 30:970].detach().mean()) == pytest.approx(100.0, rel=0.02)


def test_the_aligned_network_finds_velocities_before_it_is_trained():
    velocity = torch.linspace(-100, 100, 41)
    trunk = aligned()
    found = trunk.score(stars(velocity) - 1).softmax(dim=-1) @ trunk.velocity
    assert found.detach().numpy() == pytest.approx(velocity.numpy(), abs=1.0)


def test_the_aligned_network_brings_lines_to_rest():
    flux = stars([-70.0, 33.3]) - 1
    rest, missing = aligned()._shift(flux, torch.zeros_like(flux), torch.tensor([-70.0, 33.3]))
    assert rest[:, 20:-20].numpy() == pytest.approx((stars([0.0, 0.0]) - 1)[:, 20:-20].numpy(), abs=0.01)
    # What comes from beyond the ends is missing: 70 km/s are 7.8 pixels.
    assert missing.sum(dim=1).numpy() == pytest.approx([7.8, 3.7], abs=0.3)


def test_what_the_aligned_network_sees_does_not_jump_where_a_shift_passes_a_whole_pixel():
    trunk, flux = aligned(), stars([0.0]) - 1
    whole = 299792.458 * 0.2 / 6725.0
    below, above = (trunk._shift(flux, torch.zeros_like(flux), torch.tensor([whole + d])) for d in (-1e-3, 1e-3))
    assert float((below[0] - above[0]).abs().max()) < 1e-3
    assert float((below[1] - above[1]).abs().max()) < 1e-3


def test_the_aligned_network_does_not_look_at_regions_to_ignore_whatever_the_velocity():
    torch.manual_seed(1)
    sizes = config.Aligned(ignore=((6704.0, 6706.0),))
    network = Network(1001, 2, config.Network(architecture="aligned", sizes=sizes)).eval()
    network.fit(stars([0.0]), stars([0.0]), WAVELENGTH)
    torch.nn.init.normal_(network.members[0].last.weight)
    flux = stars([60.0])
    moved = 6705.0 * (1 + 60 / 299792.458)
    with_line = flux - 0.02 * torch.exp(-0.5 * ((WAVELENGTH - moved) / 0.15) ** 2).float()
    elsewhere = flux - 0.02 * torch.exp(-0.5 * ((WAVELENGTH - moved - 5) / 0.15) ** 2).float()
    change = [float((network(other)[0] - network(flux)[0]).detach().abs().max()) for other in (with_line, elsewhere)]
    assert change[0] < 0.1 * change[1]  # the velocity may see it


def two_kinds(n, seed=1):
    """Return standardised spectra that are sums of two patterns, shape (n, 300)."""
    random = torch.Generator().manual_seed(seed)
    place = torch.linspace(0, 1, 300)
    patterns = torch.stack([torch.sin(40 * place), torch.cos(23 * place)])
    return torch.randn((n, 2), generator=random) @ patterns


def filled(spectra, valid, spread=None, components=2):
    filling = Filling(300, components)
    filling.fit(two_kinds(500), torch.full((300,), 0.1) if spread is None else spread)
    return filling(spectra * valid, valid.float().expand(len(spectra), -1))


@pytest.mark.parametrize("valid", [slice(0, 180), slice(120, 300), slice(0, 300, 7), slice(None)])
def test_missing_pixels_become_what_the_others_let_expect(valid):
    known = torch.zeros(300)
    known[valid] = 1
    spectra = two_kinds(50, seed=2)
    assert float((filled(spectra, known) - spectra).abs().max()) < 0.01 * float(spectra.abs().max())


def test_where_nothing_is_known_the_mean_is_expected():
    assert float(filled(two_kinds(5), torch.zeros(300)).abs().max()) == 0


def test_pixels_that_are_never_looked_at_say_nothing_of_others():
    spread = torch.full((300,), 0.1)
    spread[200:] = NEVER_SEEN
    spectra = two_kinds(20)
    spoilt = spectra + 5 * (torch.arange(300) >= 200)
    assert torch.equal(filled(spectra, torch.ones(300), spread), filled(spoilt, torch.ones(300), spread))


def test_more_components_than_spectra_have_do_no_harm():
    spectra = two_kinds(50, seed=2)
    known = (torch.arange(300) < 180).float()
    assert float((filled(spectra, known, components=30) - spectra).abs().max()) < 0.05 * float(spectra.abs().max())
    few = Filling(300, 8)
    few.fit(two_kinds(3), torch.full((300,), 0.1))
    assert few(spectra, torch.ones_like(spectra)).isfinite().all()


def test_a_spectrum_that_lacks_an_end_is_seen_as_if_it_were_whole():
    velocity = torch.linspace(-60, 60, 30)
    depth = torch.linspace(0.4, 1.0, 30)[:, None]
    network = build("aligned", 1001, sizes=config.Aligned(components=2))
    network.fit(1 - depth * (1 - stars(velocity)), 1 - depth * (1 - stars(torch.zeros(30))), WAVELENGTH)
    seen = []
    network.members[0].first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, :1001]))
    whole = 1 - 0.9 * (1 - stars([0.0]))
    network(whole)
    network(torch.where(torch.arange(1001) < 600, whole, torch.nan))
    lost = (seen[1] - seen[0]).detach()[:, 620:980]
    assert float(lost.abs().max()) < 0.1 * float(seen[0][:, 620:980].detach().abs().max())


def test_a_line_beside_missing_pixels_keeps_its_depth_when_it_is_shifted():
    network, seen = aligned_network(), []
    network.members[0].first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, :1001]))
    whole = stars([0.0, 43.0, -27.0])
    network(whole)
    network(torch.where(torch.arange(1001) % 7 == 0, torch.nan, whole))
    lost, depth = seen[1] - seen[0], (stars([0.0]) - 1) / network.members[0].spread
    beside = (torch.arange(1001) % 7 == 2) & (depth[0] < 0.1 * depth.min())
    assert float((lost / depth)[:, beside].detach().abs().max()) < 0.1


def test_a_missing_pixel_is_interpolated_from_four_neighbours_or_fewer():
    place = torch.arange(30, dtype=torch.float64)
    cubic = (0.02 * place**3 - 0.5 * place**2 + place + 3).expand(5, -1)
    valid = torch.ones_like(cubic)
    valid[0, 12] = valid[1, 12:14] = valid[2, 12:15] = valid[3, 12:18] = 0
    valid[4, [11, 12, 14]] = 0
    found = interpolate_missing(torch.stack([cubic * valid, 1 - valid], dim=1))
    y = cubic[0].tolist()
    assert found[:, 12].tolist() == pytest.approx(
        [
            y[12],
            2 * y[11] - y[10] / 2 - y[14] / 2,
            4 / 3 * y[11] - y[10] / 3,
            4 / 3 * y[11] - y[10] / 3,
            4 / 3 * y[13] - y[10] / 3,
        ]
    )
    assert float(found[3, 14:16].abs().max()) == 0  # too far from any


def test_the_chart_of_a_network_is_drawn_without_a_word(tmp_path):
    watch = pytest.importorskip("anna_onnx.training.watch")
    network = build("aligned", uncertainty=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        charts = watch.Charts(tmp_path, 0)
        charts.draw_graph(network, torch.rand(2, 101))
        charts.close()
