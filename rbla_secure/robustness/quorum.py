"""How many holders a rank band needs: one number against capture by attackers and against exposure of a client.

A band with few holders is the weak point of averages by rank rows. Attackers that claim the highest rank own its rows;
and a sum over one holder is that client's update in the clear. Both are closed by the same count, so it is one piece of
code: against f attackers, all of whom may hold the band, 2f + 1 holders leave the honest in the majority.

A rule that leaves holders out and averages the others needs that majority among those it *keeps*. Whom it leaves out is
what attackers try to steer: of 2f + 1 holders it may leave out f honest ones, and of the f + 1 that are left f attack. So f more
must be there before (:func:`quorum_before_selection`).
"""

from collections.abc import Iterable, Sequence

from rbla_secure.errors import RobustnessError
from rbla_secure.lora.bands import Band


def band_quorum(f: int, privacy_quorum: int) -> int:
    """max(2f + 1, privacy_quorum): the fewest holders with which a band may be averaged.

    Args:
        f: Attackers to stand against, all of whom may hold the band.
        privacy_quorum: The fewest contributions that may be published as a sum.

    Raises:
        RobustnessError: f is negative or `privacy_quorum` is below 1.
    """
    if f < 0:
        raise RobustnessError(f"f={f} must not be negative")
    if privacy_quorum < 1:
        raise RobustnessError(f"privacy_quorum={privacy_quorum} must be at least 1")
    return max(2 * f + 1, privacy_quorum)


def quorum_before_selection(f: int, privacy_quorum: int) -> int:
    """The quorum of a rule that leaves f holders of a band out and averages the rest: f above :func:`band_quorum`, 3f + 1 or more.

    Whoever is left out, a whole quorum is kept: 2f + 1 holders, of whom at most f attack. Attackers are then fewer than half of
    what is averaged, and no choice of theirs closes a band that has its holders. The count is one of clients, not of
    weight: with weights by examples the share of f attackers also depends on what they claim (at most twice the median).

    Raises:
        RobustnessError: As :func:`band_quorum`.
    """
    return band_quorum(f, privacy_quorum) + f


def closed_bands(
    bands: Sequence[Band], ranks: Iterable[int], *, f: int, privacy_quorum: int
) -> tuple[str, ...]:
    """Describe the bands that can never open with these enrolled ranks, for a plan to report before it starts.

    Raises:
        RobustnessError: As :func:`band_quorum`.
    """
    quorum = band_quorum(f, privacy_quorum)
    enrolled = tuple(ranks)
    counts = {band: sum(rank >= band.stop for rank in enrolled) for band in bands}
    return tuple(
        f"{band}: {count} holders, {quorum} needed" for band, count in counts.items() if count < quorum
    )
