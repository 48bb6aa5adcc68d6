"""What goes wrong in training, recognised, with one line of advice: the manual's chapter on trouble as code.

Each check is a function of plain numbers and returns advice, or nothing. A
run that diverges altogether is stopped by the loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from anna_onnx.labels import Label
from anna_onnx.training.batches import FileSource
from anna_onnx.training.network import Network
from anna_onnx.training.task import Task

Row = Mapping[str, float]

PROBE = 200  # spectra looked at
LEAST = 20  # of them with a value of a label, for a judgement on it
PATIENCE = 5  # looks, and
FIRST_STEP = 300  # steps, before a run is judged
DEAD = 0.95  # fraction of a layer's units: our best recipe leaves 84 % of the first layer dead and is better for it
CONSTANT = 0.05  # scatter of the answers over that of the truth
OVERFITTED = 1.3  # squared error of the validation set over its least
STALLED = 0.95  # over its least before the last looks
APART = 0.2  # squared error of the batches over that of the validation set


class Diagnosis:
    """Watch a run at every look; each piece of advice is given once.

    Parameters
    ----------
    task : Task
        Its validation set is the probe; without one, spectra of the training set as augmented.
    steps : int
        Of the whole run: a slow start is no fault, and weak labels are learned last.
    rows : sequence of mappings
        The history so far, of a run that goes on.
    given : iterable of str
        What was advised so far, by name.
    """

    def __init__(self, task: Task, steps: int, rows: Sequence[Row] = (), given: Iterable[str] = ()) -> None:
        self.labels, self.steps = task.labels, steps
        if task.validation is not None:
            self.flux, self.truth = task.validation.flux[:PROBE], task.validation.scaled[:PROBE]
        else:
            drawn = task.source.draw(0, PROBE)
            random = torch.Generator(drawn.flux.device).manual_seed(0)
            self.flux, self.truth = drawn.augmented(task.augmentation, random).flux, drawn.scaled
        self.rows: list[Row] = list(rows)
        self.given = set(given)

    @torch.no_grad()
    def look(self, row: Row, network: Network) -> list[str]:
        """Return what is new to be said after a look."""
        self.rows.append(row)
        if len(self.rows) < PATIENCE or row["step"] < FIRST_STEP:
            return []
        device = network.inputs.fill.device
        network.eval()
        flux, truth = self.flux.to(device), self.truth.to(device)
        n_label = len(self.labels) if network.uncertainty else None
        found = {"dead": dead_units(network, flux), "overfit": overfitting(self.rows, n_label)}
        found |= judge_answers(network.combine(flux)[0], truth, self.labels)
        done = row["step"] / self.steps
        # One cause, one line: the first of these explains the others.
        order = {"overfit": 0.0, "constant": 0.1, "still": 0.1, "useless": 0.5}
        causes = [name for name, since in order.items() if found.get(name) and done >= since]
        new = [name for name in ("dead", *causes[:1]) if found[name] and name not in self.given]
        self.given |= set(new)
        return [found[name] for name in new]


def inspect_spectra(task: Task) -> Iterator[str]:
    """Say what seems wrong with the spectra, before training begins."""
    drawn = task.source.draw(0, 2000)
    # Stars of a grid lie outside the ranges only where the parameters want them there.
    outside = labels_outside(drawn.scaled, task.labels) if isinstance(task.source, FileSource) else ""
    yield from filter(None, (not_normalized(drawn.flux), outside, not_validated(task)))


def not_normalized(flux: Tensor) -> str:
    """Recognise spectra whose continuum is not 1, from the level that the brightest tenth of their pixels exceed."""
    known = torch.where(flux.isfinite(), flux, torch.nan)
    level = known.nanquantile(0.9, dim=1)
    level = level[level.isfinite()]
    low, middle, high = level.quantile(torch.tensor([0.05, 0.5, 0.95], device=level.device)).tolist()
    if 0.7 < middle < 1.4 and high - low < 0.5:
        return ""
    return (
        f"training spectra look mis-normalised: their upper level is {middle:.3g} "
        f"(90 % of them {low:.3g} to {high:.3g}), the continuum should be 1: divide each spectrum by its continuum"
    )


def labels_outside(scaled: Tensor, labels: Sequence[Label]) -> str:
    """Recognise labels of the training set that lie outside low and high."""
    outside = ((scaled < -1e-6) | (scaled > 1 + 1e-6)).sum(dim=0) / (~scaled.isnan()).sum(dim=0).clamp(min=1)
    worst = int(outside.argmax())
    if outside[worst] == 0:
        return ""
    label = labels[worst]
    return (
        f"{label.name}: {float(outside[worst]):.1%} of the training spectra lie outside {label.low:g} to "
        f"{label.high:g}, where answers are flagged: widen labels.low and labels.high, or leave those spectra out"
    )


def not_validated(task: Task) -> str:
    """Recognise labels that the validation set does not know."""
    if task.validation is None:
        return ""
    unknown = task.validation.scaled.isnan().all(dim=0).tolist()
    names = [label.name for label, is_unknown in zip(task.labels, unknown, strict=True) if is_unknown]
    return f"no validation spectrum has a value of {', '.join(names)}: not validated" if names else ""


def dead_units(network: Network, flux: Tensor) -> str:
    """Recognise layers most of whose units are zero whatever the spectrum."""
    dead = dead_fractions(network, flux)
    name, fraction = max(dead.items(), key=lambda item: item[1], default=("", 0.0))
    if fraction <= DEAD:
        return ""
    return f"{fraction:.0%} of the units of {name} are dead (zero for every spectrum): lower stage.learning_rate"


def dead_fractions(network: Network, flux: Tensor) -> dict[str, float]:
    """Return the fraction of units that are zero for all of some spectra, by ReLU layer."""
    dead: dict[str, float] = {}

    def hook_for(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            alive = (output > 0).transpose(0, 1).flatten(1).any(dim=1)  # (unit,)
            dead[name] = 1 - float(alive.float().mean())

        return modules[name].register_forward_hook(hook)

    modules = {name: module for name, module in network.named_modules() if isinstance(module, nn.ReLU)}
    hooks = [hook_for(name) for name in modules]
    try:
        network(flux)
    finally:
        for handle in hooks:
            handle.remove()
    return dead


def judge_answers(answers: Tensor, truth: Tensor, labels: Sequence[Label]) -> dict[str, str]:
    """Return what is wrong with answers, by name; labels that few of these spectra have (NaN) are left out."""
    known = ((~truth.isnan()).sum(dim=0) >= min(LEAST, len(truth))).cpu()
    if not known.any():
        return {}
    answers, truth = answers[:, known], truth[:, known]
    return {
        "constant": constant_answers(answers, truth),
        "still": cost_never_falls(answers, truth),
        "useless": uninformative_labels(answers, truth, [labels[i] for i in known.nonzero().flatten().tolist()]),
    }


def constant_answers(answers: Tensor, truth: Tensor) -> str:
    """Recognise a network that answers the same whatever the spectrum."""
    if float((answers.std(dim=0) / spread(truth)).max()) > CONSTANT:
        return ""
    return (
        "all spectra get the same answer: lower stage.learning_rate, or raise keep_probability; "
        "check that each label belongs to its spectrum"
    )


def cost_never_falls(answers: Tensor, truth: Tensor) -> str:
    """Recognise answers that are no better than the mean of the labels."""
    error = (answers - truth).square().nanmean(dim=0).sum()
    if error < 0.9 * spread(truth).square().sum():
        return ""
    return (
        "the cost does not fall below that of answering the mean every time: another stage.learning_rate "
        "('anna train --find-lr' measures one); check that each label belongs to its spectrum"
    )


def uninformative_labels(answers: Tensor, truth: Tensor, labels: Sequence[Label]) -> str:
    """Recognise a label that the spectra say nothing about, although they do about another."""
    ratio = (answers - truth).square().nanmean(dim=0).sqrt() / spread(truth)
    worst = int(ratio.argmax())
    if ratio[worst] < 0.9 or ratio.min() > 0.5:
        return ""
    return (
        f"{labels[worst].name}: its error is {float(ratio[worst]):.0%} of its spread: "
        "these spectra carry no information on it; leave it out of labels.names"
    )


def overfitting(rows: Sequence[Row], n_label: int | None = None) -> str:
    """Recognise a batch cost that falls while the validation cost rises, or stays far above it.

    Parameters
    ----------
    rows : sequence of mappings
        The history.
    n_label : int, optional
        Of a network with uncertainty, whose cost is no squared error but minus a log-likelihood.
    """
    validation = [_log_error(row["validation_cost"], n_label) for row in rows if "validation_cost" in row]
    if len(validation) < PATIENCE:
        return ""
    batch = [_log_error(row["batch_cost"], n_label) for row in rows]
    best = validation.index(min(validation))
    rising = min(validation[-3:]) > validation[best] + math.log(OVERFITTED)
    falling = batch[-1] < batch[best]
    stalled = len(validation) > PATIENCE and (
        min(validation[-PATIENCE:]) > min(validation[:-PATIENCE]) + math.log(STALLED)
    )
    apart = batch[-1] < validation[-1] + math.log(APART)
    if not ((rising and falling) or (stalled and apart)):
        return ""
    return (
        f"over-fitting since step {int(rows[best]['step'])}: the batch cost falls, the validation cost does not: "
        "more training spectra, more augmentation, weight_decay, or keep_probability below 1"
    )


def _log_error(cost: float, n_label: int | None) -> float:
    """Return the logarithm of the squared error that a cost stands for, a constant apart.

    Minus a Gaussian log-likelihood has either sign; a sigma twice as large costs ln(2) more for each label.
    """
    return math.log(max(cost, 1e-30)) if n_label is None else 2 * cost / n_label


def spread(truth: Tensor) -> Tensor:
    """Return the standard deviation of each label, NaN apart."""
    deviation = truth - truth.nanmean(dim=0)
    return deviation.square().nanmean(dim=0).sqrt().clamp(min=1e-6)
