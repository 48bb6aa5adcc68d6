"""Networks: from flux to scaled labels, and to their uncertainty where it is asked for.

Every network is `Inputs` (what stands in for missing pixels, and standardising), followed
by one trunk for each member of the ensemble. New layouts register in `TRUNKS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.medium import C_KMS
from anna_onnx.training.covariance import count_pairs, mixture_correlation, read_spread

LOG_SIGMA_RANGE = (-7.0, 3.0)
NEVER_SEEN = 1e9  # spread of a pixel that the dense layers are to see as the mean
FILLING_ROUNDS, TINY = 3, 1e-20
TYPICAL_NOISE = 0.01  # of a pixel, for the weight of what is seen against what is usual
SCORE_DROP = 3.0  # between templates of neighbouring velocities


class Network(nn.Module):
    """The whole network.

    Parameters
    ----------
    n_pixel, n_label : int
    settings : config.Network

    Notes
    -----
    `forward` takes flux, shape (batch, n_pixel), continuum = 1, NaN where a pixel is missing, and
    returns ``(mean, spread)`` of the scaled labels. The mean has shape (member, batch, n_label). The
    spread is None without uncertainty, else log sigma, of the same shape, and with covariance
    the numbers that `correlation_of` takes behind it: (member, batch, n_label + n_pair).
    """

    def __init__(self, n_pixel: int, n_label: int, settings: config.Network) -> None:
        super().__init__()
        self.n_label = n_label
        self.uncertainty = settings.uncertainty
        self.inputs = Inputs(n_pixel, channels=CHANNELS[settings.architecture])
        self.covariance = settings.covariance and n_label > 1
        n_out = n_label * (2 if settings.uncertainty else 1) + (count_pairs(n_label) if self.covariance else 0)
        build = TRUNKS[settings.architecture]
        self.members = nn.ModuleList(build(n_pixel, n_out, settings.sizes) for _ in range(settings.members))

    def forward(self, flux: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.inputs(flux)
        # Starting a kernel for each member is what limits small networks on a GPU; processors gain nothing.
        together = self.training and x.is_cuda and len(self.members) > 1 and not torch.compiler.is_compiling()
        out = self.ask_together(x) if together else self.ask_in_turn(x)
        if not self.uncertainty:
            return out, None
        n = self.n_label
        mean, log_sigma = out[..., :n], out[..., n : 2 * n].clamp(*LOG_SIGMA_RANGE)
        return mean, torch.cat([log_sigma, out[..., 2 * n :]], dim=-1) if self.covariance else log_sigma

    def ask_in_turn(self, x: Tensor) -> Tensor:
        """Return what each member makes of the inputs, shape (member, batch, n_out)."""
        return torch.stack([member(x) for member in self.members])

    def ask_together(self, x: Tensor) -> Tensor:
        """Return the same as `ask_in_turn`, from one graph in which the members' weights are stacked."""
        first = self.members[0]
        weights = _stacked([dict(member.named_parameters()) for member in self.members])
        buffers = [dict(member.named_buffers()) for member in self.members]
        memory = _stacked(buffers)

        def ask(weights: dict[str, Tensor], memory: dict[str, Tensor]) -> Tensor:
            result: Tensor = functional_call(first, (weights, memory), (x,))
            return result

        out: Tensor = vmap(ask, randomness="different")(weights, memory)
        with torch.no_grad():  # running means, which training changes
            for i, buffer in enumerate(buffers):
                for name, values in buffer.items():
                    values.copy_(memory[name][i])
        return out

    def combine(self, flux: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and sigma of the scaled labels, shape (batch, n_label), over the members.

        The members are an equal mixture of Gaussians (Lakshminarayanan et al. 2017,
        arXiv:1612.01474, eq. 2): their scatter adds to their mean variance.
        """
        mean, sigma, _ = self.combine_all(flux)
        return mean, sigma

    def combine_all(self, flux: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the same and the correlation, shape (batch, n_label, n_label), None without covariance."""
        mean, spread = self(flux)
        center = mean.mean(dim=0)
        if spread is None:
            return center, None, None
        log_sigma, correlation = read_spread(spread, self.n_label)
        variance = (2 * log_sigma).exp().mean(dim=0) + ((mean - center) ** 2).mean(dim=0)
        sigma = variance.sqrt()
        if correlation is not None:
            correlation = mixture_correlation(mean, log_sigma.exp(), correlation, sigma)
        return center, sigma, correlation

    def fit(self, flux: Tensor, at_rest: Tensor, wavelength: Tensor) -> None:
        """Standardise for the training spectra.

        Parameters
        ----------
        flux : Tensor, shape (n, n_pixel)
            Some of them as the network will see them.
        at_rest : Tensor, shape (n, n_pixel)
            Some of them at rest, without noise.
        wavelength : Tensor of float64, shape (n_pixel,)
        """
        aligned = [member for member in self.members if isinstance(member, AlignedTrunk)]
        for member in aligned:
            member.fit(at_rest, wavelength)
        if aligned:  # they standardise at rest: their input is flux - 1
            one = torch.ones_like(wavelength)
            self.inputs.fit(one, one)
        else:
            self.inputs.fit(*spread_of(flux))

    def set_keep_probability(self, keep: float) -> None:
        """Set the dropout of all dense layers."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 1.0 - keep


def _stacked(tables: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([table[name] for table in tables]) for name in tables[0]}


def spread_of(flux: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and spread of each pixel over spectra, shape (n_pixel,) each.

    The mean is 1 where a pixel is missing in all of them. The spread has a floor, a tenth of
    its mean, for pixels that hardly vary, and 0.0001 of the continuum for
    spectra that do not vary at all.
    """
    known = ~flux.isnan()
    n = known.sum(dim=0).clamp(min=1)
    mean = flux.nan_to_num().sum(dim=0) / n
    spread = ((torch.where(known, flux - mean, 0.0) ** 2).sum(dim=0) / n).sqrt()
    spread = torch.maximum(spread, 0.1 * spread.mean()).clamp(min=1e-4)
    return torch.where(known.any(dim=0), mean, 1.0), spread


class Inputs(nn.Module):
    """Fill missing pixels and standardise.

    A missing pixel (NaN) becomes what training spectra have there on average, so that it says
    nothing; a second channel tells the network which pixels are real.
    """

    fill: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, n_pixel: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("fill", torch.ones(n_pixel))
        self.register_buffer("offset", torch.zeros(n_pixel))
        self.register_buffer("scale", torch.ones(n_pixel))

    def fit(self, mean: Tensor, spread: Tensor) -> None:
        """Standardise with the mean and the spread of the training spectra, shape (n_pixel,) each."""
        self.fill.copy_(mean)
        self.offset.copy_(mean)
        self.scale.copy_(spread)

    def forward(self, flux: Tensor) -> Tensor:
        missing = torch.isnan(flux)
        x = (torch.where(missing, self.fill, flux) - self.offset) / self.scale
        if self.channels == 1:
            return x.unsqueeze(1)  # (batch, 1, pixel)
        return torch.stack([x, missing.to(x.dtype)], dim=1)  # (batch, 2, pixel)


class AnnaTrunk(nn.Sequential):
    """The old program's layout: convolution, two dense layers, outputs without bias.

    Flattening goes channel-major here; the old program went pixel-major, which
    `anna convert` accounts for.
    """

    def __init__(self, n_pixel: int, n_out: int, sizes: config.Anna) -> None:
        super().__init__(
            nn.Conv1d(1, sizes.filters, sizes.kernel, padding=sizes.kernel // 2),
            nn.ReLU(),
            nn.Flatten(),  # (batch, channel * pixel)
            nn.Linear(sizes.filters * n_pixel, sizes.fc1),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(sizes.fc1, sizes.fc2),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(sizes.fc2, n_out, bias=False),
        )
        initialize(self)


class StarnetTrunk(nn.Sequential):
    """The layout of StarNet (Fabbro et al. 2018, MNRAS 475, 2978, section 2)."""

    def __init__(self, n_pixel: int, n_out: int, sizes: config.Starnet) -> None:
        left = (n_pixel - 2 * (sizes.kernel - 1)) // sizes.pool
        if left < 1:
            raise TrainingError(
                f"network: kernel {sizes.kernel} and pool {sizes.pool} leave nothing of {n_pixel} pixels"
            )
        flat = sizes.filters2 * left
        super().__init__(
            nn.Conv1d(1, sizes.filters1, sizes.kernel),
            nn.ReLU(),
            nn.Conv1d(sizes.filters1, sizes.filters2, sizes.kernel),
            nn.ReLU(),
            nn.MaxPool1d(sizes.pool),
            nn.Flatten(),  # (batch, channel * pixel)
            nn.Linear(flat, sizes.fc1),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(sizes.fc1, sizes.fc2),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(sizes.fc2, n_out),
        )
        initialize(self)


class AlignedTrunk(nn.Module):
    """Find the radial velocity, bring the spectrum to rest, and look at it there with dense layers.

    Dense layers cost a small part of what convolutions cost that find lines anywhere, but
    need each line at its place. So templates at many velocities, the mean training spectrum
    to begin with, score the spectrum; the velocity is their mean weighted by the
    softmax of the scores; cubic interpolation shifts the spectrum by it, differentiably, so that
    the templates are trained with the rest. Residual blocks follow (He et al. 2016, arXiv:1603.05027).

    Missing pixels are interpolated from their neighbours, or have no lines (0), for the templates and the shift. For
    the dense layers they have those predicted from the others, or mean ones, and the layers learn from the share of
    missing pixels in each stretch of some pixels.
    """

    velocity: Tensor
    per_kms: Tensor
    mean: Tensor
    spread: Tensor
    per_pixel: Tensor

    def __init__(self, n_pixel: int, n_out: int, sizes: config.Aligned) -> None:
        super().__init__()
        low, high = sizes.velocities
        velocity = torch.linspace(low, high, 1 + max(1, round((high - low) / sizes.velocity_step)))
        self.ignore = sizes.ignore
        self.register_buffer("velocity", velocity)  # km/s
        self.register_buffer("per_kms", torch.zeros(n_pixel))  # pixels that 1 km/s shifts
        self.register_buffer("mean", torch.zeros(n_pixel))  # of flux - 1, at rest
        self.register_buffer("spread", torch.ones(n_pixel))
        self.stretch = sizes.stretch
        pixels = [min(self.stretch, n_pixel - first) for first in range(0, n_pixel, self.stretch)]
        self.register_buffer("per_pixel", 1 / torch.tensor(pixels, dtype=torch.float32), persistent=False)
        self.filling = Filling(n_pixel, sizes.components) if sizes.components else None
        self.score = nn.Linear(n_pixel, len(velocity))
        self.first = nn.Linear(n_pixel + len(pixels), sizes.width)
        blocks = [DenseBlock(sizes.width, sizes.hidden) for _ in range(sizes.blocks)]
        self.blocks = nn.Sequential(*blocks)
        self.after = nn.Sequential(nn.LayerNorm(sizes.width), nn.SiLU(), nn.Dropout(0.0))
        self.last = nn.Linear(sizes.width, n_out)
        initialize(self)
        for layer in (self.last, *(block.narrow for block in blocks)):
            nn.init.zeros_(layer.weight)

    @torch.no_grad()
    def fit(self, flux: Tensor, wavelength: Tensor) -> None:
        """Take mean and spread of spectra at rest, shape (n, n_pixel), and make templates of the mean."""
        mean, spread = spread_of(flux)
        per_kms = (wavelength / torch.gradient(wavelength)[0] / C_KMS).float()
        self.per_kms.copy_(per_kms)
        self.mean.copy_(mean - 1)
        self.spread.copy_(spread)
        for low, high in self.ignore:
            self.spread[(wavelength >= low) & (wavelength <= high)] = NEVER_SEEN
        if self.filling is not None:
            self.filling.fit(((flux - mean) / self.spread).nan_to_num(), self.spread)
        lines = (self.mean - self.mean.mean()).expand(len(self.velocity), -1)
        missing = torch.zeros_like(lines)
        # Shifted the other way: from rest to each velocity.
        moved, _ = self._shift(lines, missing, -self.velocity)
        templates = unit_templates(moved)
        middle = len(templates) // 2
        drop = (lines[0] @ (templates[middle] - templates[middle - 1])).abs()
        self.score.weight.copy_(templates * (SCORE_DROP / drop.clamp(min=1e-3)))

    def forward(self, x: Tensor) -> Tensor:
        flux, missing = interpolate_missing(x), x[:, 1]  # flux - 1
        velocity = self.score(flux).softmax(dim=-1) @ self.velocity
        flux, missing = self._shift(flux, missing, velocity)
        y = (flux - self.mean) / self.spread * (1 - missing)
        if self.filling is not None:
            y = y + missing * self.filling(y.detach(), 1 - missing)
        # Not AveragePool with ceil_mode: onnxruntime 1.15 divides the last, shorter stretch by the whole length.
        n = len(self.per_pixel)
        pad = n * self.stretch - missing.shape[1]
        share = functional.pad(missing, (0, pad)).reshape(-1, n, self.stretch).sum(dim=-1) * self.per_pixel
        result: Tensor = self.last(self.after(self.blocks(self.first(torch.cat([y, share], dim=1)))))
        return result

    def _shift(self, flux: Tensor, missing: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """Shift spectra of shape (batch, n_pixel) to the blue by velocities (batch,): cubic, missing pixels linear."""
        n = flux.shape[1]
        away = velocity.unsqueeze(1) * self.per_kms
        whole = away.floor()
        t = away - whole
        # The margins are as wide as the neighbours: what lies farther beyond the ends is in them too.
        flux, missing = functional.pad(flux, (4, 4)), functional.pad(missing, (4, 4), value=1.0)
        left = (torch.arange(n, device=flux.device) + whole.long() + 3).clamp(0, n + 4)
        near = [flux.gather(1, left + k) for k in range(4)]
        # Catmull-Rom's weights (Keys 1981, IEEE Trans. ASSP 29, 1153, a = -1/2).
        weights = (
            ((-0.5 * t + 1) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((-1.5 * t + 2) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        )
        shifted = sum((w * pixel for w, pixel in zip(weights, near, strict=True)), torch.zeros_like(t))
        lost = [missing.gather(1, left + k) for k in (1, 2)]
        return shifted, lost[0] + t * (lost[1] - lost[0])


def interpolate_missing(x: Tensor) -> Tensor:
    """Return flux whose missing pixels are what the two pixels on either side of each let expect.

    That is the cubic through all four, and through fewer what it makes of them, so that a pixel between a valid and a
    missing one is not shifted towards the continuum.

    Parameters
    ----------
    x : Tensor, shape (batch, 2, n_pixel)
        Flux, 0 where it is missing, as it stays where none of the four is valid; and where it is missing (1).
    """
    flux, missing = x.unbind(dim=1)
    kernel = x.new_tensor([-1 / 6, 2 / 3, 0, 2 / 3, -1 / 6]).expand(2, 1, 5)
    known, lost = functional.conv1d(x, kernel, padding=2, groups=2).unbind(dim=1)
    whole = functional.conv1d(torch.ones_like(x[:1, :1]), kernel[:1], padding=2)[:, 0]
    return flux + missing * known / (whole - lost + TINY)


def unit_templates(spectra: Tensor) -> Tensor:
    """Return templates for spectra of any level: around 0 and of length 1, shape (n, n_pixel)."""
    around = spectra - spectra.mean(dim=1, keepdim=True)
    templates: Tensor = around / around.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return templates


class Filling(nn.Module):
    """Predict all pixels from the valid ones.

    The amounts of principal components, normally distributed, that fit the pixels best, by conjugate gradients
    (Hestenes & Stiefel 1952). The components are turned such that without missing pixels no round is needed.
    """

    components: Tensor
    prior: Tensor
    weight: Tensor

    def __init__(self, n_pixel: int, n_component: int) -> None:
        super().__init__()
        self.register_buffer("components", torch.zeros(n_component, n_pixel))
        self.register_buffer("prior", torch.ones(n_component))  # precision
        self.register_buffer("weight", torch.ones(n_pixel))  # 1 / variance of the noise

    @torch.no_grad()
    def fit(self, spectra: Tensor, spread: Tensor) -> None:
        """Learn from standardised spectra, shape (n, n_pixel), and their spread, shape (n_pixel,)."""
        self.weight.copy_((spread / TYPICAL_NOISE).square() * (spread < NEVER_SEEN))
        exact = spectra.double()
        n = min(len(self.prior), len(exact))
        _, amounts = torch.linalg.eigh(exact @ exact.T)  # the largest last
        scaled = amounts[:, -n:].T @ exact / math.sqrt(len(exact))
        known, turned = torch.linalg.eigh((scaled * self.weight) @ scaled.T)
        self.prior[:n] = (1 / (1 + known)).float()
        self.components[:n] = ((turned.T @ scaled) * self.prior[:n].sqrt()[:, None]).float()

    def forward(self, y: Tensor, valid: Tensor) -> Tensor:
        """Return pixels, shape (batch, n_pixel), from those that are valid (1), the others being 0."""
        weight = valid * self.weight
        rest = direction = (y * self.weight) @ self.components.T
        amounts, size = torch.zeros_like(rest), rest.square().sum(dim=1, keepdim=True)
        for _ in range(FILLING_ROUNDS):
            image = self.prior * direction + (weight * (direction @ self.components)) @ self.components.T
            step = size / (direction * image).sum(dim=1, keepdim=True).clamp(min=TINY)
            amounts, rest = amounts + step * direction, rest - step * image
            before, size = size, rest.square().sum(dim=1, keepdim=True)
            direction = rest + size / before.clamp(min=TINY) * direction
        return amounts @ self.components


class DenseBlock(nn.Module):
    """Two dense layers beside a short cut, which they leave alone at first."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.narrow(self.drop(functional.silu(self.widen(self.before(x)))))
        return result


class CompactTrunk(nn.Sequential):
    """Residual blocks, each stage at half the pixels, then a few pooled positions and two dense layers."""

    def __init__(self, n_pixel: int, n_out: int, sizes: config.Compact) -> None:
        layers: list[nn.Module] = [nn.Conv1d(2, sizes.width, sizes.kernel, padding=sizes.kernel // 2, bias=False)]
        n_in, length = sizes.width, n_pixel
        for stage in range(sizes.stages):
            width = sizes.width * 2 ** ((stage + 1) // 2)
            for block in range(sizes.blocks):
                layers.append(ResidualBlock(n_in, width, sizes.kernel, stride=2 if block == 0 else 1))
                n_in = width
            length = -(-length // 2)
        layers += [nn.BatchNorm1d(n_in), nn.ReLU(), Pool(length, min(sizes.pooled, length)), nn.Flatten()]
        layers += [nn.Linear(n_in * min(sizes.pooled, length), sizes.dense), nn.ReLU(), nn.Dropout(0.0)]
        layers += [nn.Linear(sizes.dense, n_out)]
        super().__init__(*layers)
        initialize(self)


class ResidualBlock(nn.Module):
    """Two convolutions beside a short cut (He et al. 2016, arXiv:1603.05027), the channels weighted by global context.

    The weighting is squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507).
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm1d(n_in), nn.ReLU())
        self.convolve = nn.Sequential(
            nn.Conv1d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(n_out),
            nn.ReLU(),
            nn.Conv1d(n_out, n_out, kernel, padding=kernel // 2, bias=False),
        )
        squeezed = max(n_out // 8, 4)
        self.weigh = nn.Sequential(nn.Linear(n_out, squeezed), nn.ReLU(), nn.Linear(squeezed, n_out), nn.Sigmoid())
        self.shortcut = nn.Conv1d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.convolve(x)
        weight: Tensor = self.weigh(y.mean(dim=-1))  # (batch, channel)
        result: Tensor = y * weight.unsqueeze(-1) + self.shortcut(x)
        return result


class Pool(nn.Module):
    """Average the pixels of equal stretches: (batch, channel, length) -> (batch, channel, n)."""

    matrix: Tensor

    def __init__(self, length: int, n: int) -> None:
        super().__init__()
        edges = torch.linspace(0, length, n + 1)
        position = torch.arange(length)
        overlap = torch.minimum(position[:, None] + 1, edges[1:]) - torch.maximum(position[:, None], edges[:-1])
        overlap = overlap.clamp(min=0)  # (length, n)
        self.register_buffer("matrix", overlap / overlap.sum(dim=0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = x @ self.matrix
        return pooled


TRUNKS: Mapping[str, Callable[[int, int, Any], nn.Module]] = {
    "aligned": AlignedTrunk,
    "anna": AnnaTrunk,
    "compact": CompactTrunk,
    "starnet": StarnetTrunk,
}
CHANNELS: Mapping[str, int] = {"aligned": 2, "anna": 1, "compact": 2, "starnet": 1}


def initialize(network: nn.Module) -> None:
    """Draw weights as He et al. (2015, arXiv:1502.01852, eq. 10) did, biases zero."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Linear)):
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


def activation_bytes(network: nn.Module, flux: Tensor) -> float:
    """Return the memory that the backward pass keeps for each spectrum.

    Parameters
    ----------
    network : nn.Module
    flux : Tensor, shape (batch, n_pixel)
        A few spectra to try with.
    """
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    network.eval()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(flux)
    return sum(kept.values()) / len(flux)
