"""What a configuration says of client-level noise and of the grid of integers, before anything is worked out."""

from rbla_secure.config import Config
from rbla_secure.config.choices import Adjacency, Clipping, RowOrder
from rbla_secure.privacy.noise import NoisePlace, noise_kind
from rbla_secure.privacy.quantize import Quantizer


def noisy(config: Config) -> bool:
    """Whether the run adds client-level noise."""
    return config.noise_multiplier > 0


def noise_by_server(config: Config) -> bool:
    """Whether the server is the party that adds client-level noise, where there is any, and is trusted with the sums."""
    return noise_kind(config.privacy.mechanism).place is NoisePlace.SERVER


def noise_follows(config: Config) -> bool:
    """Whether sums are opened without noise, and the server adds it: nothing that can be seen may follow from them before."""
    return noisy(config) and noise_by_server(config)


def whoever_is_there(config: Config) -> bool:
    """Whether bands open over whoever has answered, also over nobody: who did must not show in the adapter."""
    return noisy(config) and config.privacy.adjacency is Adjacency.ADD_OR_REMOVE


def adaptive(config: Config) -> bool:
    """Whether the clip norm follows a quantile of the updates' norms."""
    return config.privacy.clipping is Clipping.ADAPTIVE


def bands_alone(config: Config) -> bool:
    """Whether each rank band of an update is clipped and rounded alone: where rows are trained in turns.

    What a band sends is then one function of model, examples and seed for all who hold it, as what it learns.
    """
    return config.training.rows is RowOrder.IN_TURNS


def grid_is_chosen(config: Config) -> bool:
    """Whether the grid follows from the room for noise, not from quantization.bits."""
    return noisy(config) and noise_kind(config.privacy.mechanism).chooses_grid


def levels(config: Config) -> int:
    """The largest magnitude of one integer."""
    return Quantizer(bits=config.quantization.bits, bound=config.quantization.bound).levels
