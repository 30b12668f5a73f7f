"""Records of who dealt which shares, and of who is at fault when shares do not fit. Argument: ../commitments.py."""

from collections.abc import Collection, Mapping
from typing import final

from protocols.errors import RosterError
from protocols.masking.commitments import EXTRA, MASK_KEY, SELF_MASK, Share
from protocols.masking.messages import COMMITMENT_SIZE, KeyAdvertisement, RevealedShares
from protocols.masking.terms import MaskingTerms
from protocols.profiles import Adversary
from protocols.session import ClientId


@final
class Dealings:
    """The commitments of one session, the disputes about them, and the faults that follow from both.

    Args:
        terms: The terms of the session.
        advertisements: By position: commitments to secrets, and public mask keys.
        dealt: By dealer and holder: the commitments to all of the dealer's shares that the holder keeps.
    """

    def __init__(
        self,
        terms: MaskingTerms,
        *,
        advertisements: Mapping[int, KeyAdvertisement],
        dealt: Mapping[int, Mapping[int, bytes]],
    ) -> None:
        self._terms = terms
        self._advertised = {p: entry.commitments for p, entry in advertisements.items()}
        self._dealt = dealt
        self._places = {dealer: _places(terms, dealer) for dealer in dealt}
        self._disputes: dict[int, frozenset[int]] = {}
        self._wrong: dict[int, list[tuple[int, int, int]]] = {}
        self._misdealt: dict[int, str] = {}

    def digests(self, dealers: Collection[int], holder: int) -> dict[int, bytes]:
        """Return, by dealer, the digest that a holder has to compare."""
        digest = self._terms.commitments.digest
        return {
            dealer: digest(self._dealt[dealer][holder], owner=dealer, holder=holder) for dealer in dealers
        }

    def dispute(self, holder: int, dealers: Collection[int], *, delivered: Collection[int]) -> None:
        """Note the dealers whose bundles a holder cannot use.

        Raises:
            RosterError: It was not delivered one of these bundles.
        """
        if strangers := set(dealers) - set(delivered):
            name = self._terms.session.client_at(holder)
            raise RosterError(f"{name}: disputes a bundle of position {min(strangers)} that it did not get")
        if dealers:
            self._disputes[holder] = frozenset(dealers)

    def disputed_by(self, holder: int) -> frozenset[int]:
        """Return the dealers of whom a holder will reveal no share."""
        return self._disputes.get(holder, frozenset())

    def check(self, message: RevealedShares) -> None:
        """Compare every share that a holder reveals with its commitment. Wrong ones are noted and not used."""
        kinds = ((MASK_KEY, message.mask_key_shares), (SELF_MASK, message.self_mask_shares))
        shares: list[Share] = [
            (owner, index, number, share)
            for number, given in kinds
            for (owner, index), share in given.items()
        ]
        shares += [(p, index, EXTRA + extra, s) for (p, index, extra), s in message.extra_shares.items()]
        holder, dealt, places = message.sender, self._dealt, self._places
        wrong = [
            (owner, index, number)
            for (owner, index, number, _), made in zip(
                shares, self._terms.commitments.shares(shares, holder=holder), strict=True
            )
            if not dealt[owner][holder].startswith(made, COMMITMENT_SIZE * (places[owner][index] + number))
        ]
        if wrong:
            self._wrong[holder] = wrong

    def unusable(self, owner: int, segment: int) -> set[int]:
        """Return the holders with a wrong share of an owner's secrets of a segment, or without use of its bundle."""
        disputing = {holder for holder, dealers in self._disputes.items() if owner in dealers}
        lying = {
            holder
            for holder, wrong in self._wrong.items()
            if any(entry[:2] == (owner, segment) for entry in wrong)
        }
        return disputing | lying

    def fits(self, secret: bytes, *, owner: int, segment: int, number: int) -> bool:
        """Return whether a recovered seed or extra secret is the one that its owner has committed to."""
        made = self._terms.commitments.secret(secret, owner=owner, segment=segment, number=number)
        return made == self._advertised[owner][segment][number - SELF_MASK]

    def convict(self, dealer: int, segment: int) -> None:
        """Note that shares which fit a dealer's commitments do not give the secret that it committed to."""
        self._misdealt.setdefault(
            dealer, f"dealt shares of segment {segment} that do not give the secrets it committed to"
        )

    def faults(self) -> dict[ClientId, str]:
        """Return who did not follow the protocol, and what each did.

        For a wrong share, or shares that do not give what was committed to: certain, however many lie. For disputes: certain
        if no more clients lie than :meth:`_most`.
        """
        found = {dealer: [reason] for dealer, reason in self._misdealt.items()}
        for holder, wrong in self._wrong.items():
            found.setdefault(holder, []).append(self._describe(wrong))
        pairs = [
            pair
            for holder, dealers in self._disputes.items()
            for d in dealers
            for pair in ((holder, d), (d, holder))
        ]
        for position in {one for one, _ in pairs}:
            others = {other for one, other in pairs if one == position}
            if len(others) > self._most():
                found.setdefault(position, []).append(
                    f"is in dispute about share bundles with {len(others)} clients, more than the {self._most()} "
                    "that may be dishonest"
                )
        return {self._terms.session.client_at(p): "; ".join(found[p]) for p in sorted(found)}

    def disputes(self) -> dict[ClientId, tuple[ClientId, ...]]:
        """By holder: the dealers whose bundles it could not use. One of each pair is at fault; which one is unknown."""
        name = self._terms.session.client_at
        return {name(h): tuple(map(name, sorted(self._disputes[h]))) for h in sorted(self._disputes)}

    def _most(self) -> int:
        """Return how many clients may be dishonest by the profile, at least 1: one with more disputes is named.

        With a server that follows the protocol these are all below the threshold, where all share with all.
        """
        terms, profile = self._terms, self._terms.profile
        if profile.adversary is Adversary.SEMI_HONEST and terms.complete:
            return max(1, terms.share_threshold - 1)
        return max(1, profile.corrupt(len(terms.session.members)))

    def _describe(self, wrong: list[tuple[int, int, int]]) -> str:
        owner, index, number = min(wrong)
        what = {MASK_KEY: "mask key", SELF_MASK: "self-mask seed"}.get(
            number, f"extra secret {number - EXTRA}"
        )
        more = f", and {len(wrong) - 1} more wrong shares" if len(wrong) > 1 else ""
        return f"revealed a wrong share of the {what} of {self._terms.session.client_at(owner)} in segment {index}{more}"


def _places(terms: MaskingTerms, dealer: int) -> dict[int, int]:
    """Return, by segment of a dealer, how many commitments precede those of the segment."""
    places, at = {}, 0
    for segment in terms.session.segments_of(terms.session.client_at(dealer)):
        places[segment.index] = at
        at += EXTRA + segment.extra_secrets
    return places
