"""Suspicion scores of whole clients, over all the bands they hold; shape (n,), high is suspicious.

Lengths and distances add up over bands as squares, as they do over the coordinates of one vector; inside a band only its
holders are compared. Clients of unequal rank hold unequal numbers of bands: compare their scores inside a tier
(:mod:`rbla_secure.robustness.tiers`).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.rules.directional import cosines
from rbla_secure.robustness.rules.krum import krum_scores
from rbla_secure.robustness.rules.matrix import row_norms
from rbla_secure.robustness.rules.spectral import COORDINATES, spectral_scores
from rbla_secure.robustness.updates import BandUpdates, Updates

Scores = npt.NDArray[np.float64]
Bands = Mapping[int, BandUpdates]


def spectral(updates: Updates, bands: Bands, *, seed: int, coordinates: int = COORDINATES) -> Scores:
    """DnC: the length of a client's projection on each band's top singular direction, over its bands together.

    Each band's coordinates are drawn by a generator of its own from the seed and its index, so that a band that closes
    changes nothing for the others.
    """
    squares = np.zeros(len(updates.clients))
    with np.errstate(over="ignore"):
        for index, band in bands.items():
            generator = np.random.default_rng([seed, index])
            found = spectral_scores(band.values, generator=generator, coordinates=coordinates)
            squares[band.holders] += np.square(found)
    return np.sqrt(squares)


def distances(updates: Updates, bands: Bands, *, f: int) -> Scores:
    """Multi-Krum: the mean squared distance to the n - f - 2 nearest holders of a band, over its bands together."""
    found = np.zeros(len(updates.clients))
    for band in bands.values():
        neighbors = len(band.holders) - f - 2
        found[band.holders] += krum_scores(band.values, f=f) / neighbors
    return found


def norms(updates: Updates, bands: Bands, centers: Mapping[int, RealVector] | None = None) -> Scores:
    """The distance of each client from the center (or from zero) in the rows it holds."""
    squares = np.zeros(len(updates.clients))
    with np.errstate(over="ignore"):
        for index, band in bands.items():
            squares[band.holders] += np.square(
                row_norms(band.values, None if centers is None else centers[index])
            )
    return np.asarray(np.sqrt(squares))


def lengths_held(updates: Updates, bands: Bands) -> Scores:
    """By client: how many coordinates it holds in these bands, 1 at the least; the dimension d of its scores.

    What d values of noise add up to spreads by a power of d: a cosine by about d ** -1/2 between clients that differ by noise
    (on the default job two to three times as much at ranks 2 to 4 as at ranks 8 to 16), a squared distance by d ** 1/2, the
    length of a projection on one direction by the same for all. Divided by that, scores of all ranks spread alike.
    """
    found = np.zeros(len(updates.clients))
    for band in bands.values():
        found[band.holders] += band.values.shape[1]
    return np.maximum(found, 1.0)


def cosines_to(updates: Updates, bands: Bands, reference: Mapping[int, RealVector]) -> Scores:
    """The cosine between each client's rows and the reference's rows of the same bands; 0 where either has none.

    Bands that the reference lacks (they were closed, or it is the first round they open) do not count.
    """
    inner, own, theirs = (np.zeros(len(updates.clients)) for _ in range(3))
    scale = max((float(np.abs(vector).max()) for vector in reference.values()), default=0.0)
    for index, band in bands.items():
        if index not in reference or not reference[index].any():
            continue
        length = float(np.sqrt(np.square(reference[index] / scale).sum()))
        lengths = np.minimum(row_norms(band.values), 1e150)
        inner[band.holders] += cosines(band.values, reference=reference[index]) * lengths * length
        own[band.holders] += np.square(lengths)
        theirs[band.holders] += length**2
    both = np.sqrt(own) * np.sqrt(theirs)
    return np.asarray(np.divide(inner, both, out=np.zeros_like(inner), where=both > 0))
