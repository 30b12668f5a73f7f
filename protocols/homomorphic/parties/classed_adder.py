"""Sums from which the members of a rank can be left out: one accumulator per class, or one if there are no classes.

Whether a class is large enough to be opened is known when the last upload has come, and by then everybody's was added.
Memory grows with the number of ranks, not with that of clients.
"""

from collections.abc import Mapping
from typing import final

from protocols.errors import RosterError
from protocols.homomorphic.parties.adder import Adder
from protocols.homomorphic.terms import EncryptionTerms


def class_of(terms: EncryptionTerms, position: int) -> int:
    """Return the class of a member, which is its rank; 0 where all count together."""
    return terms.session.ranks[position - 1] if terms.session.class_quorum else 0


def included_classes(
    terms: EncryptionTerms, added: frozenset[int], present: frozenset[int]
) -> frozenset[int]:
    """Return the classes that make up a sum over those present; every class must be whole.

    Raises:
        RosterError: They are not whole classes of those that were added.
    """
    classes = frozenset(class_of(terms, position) for position in present)
    if present != frozenset(position for position in added if class_of(terms, position) in classes):
        raise RosterError(
            "the contributors of the sum are not those whose inputs were added, but for whole classes"
        )
    return classes


@final
class ClassedAdder:
    """The sums of one session, by class. Run by the verifier.

    Attributes:
        added: Positions of those whose inputs it has.
    """

    def __init__(self, terms: EncryptionTerms) -> None:
        self._terms = terms
        self._by_class: dict[int, Adder] = {}
        self.added: frozenset[int] = frozenset()

    def add(self, position: int, ciphertexts: Mapping[int, bytes]) -> None:
        """Add one client's ciphertexts. Raises CiphertextError; the sums are then as before."""
        key = class_of(self._terms, position)
        adder = self._by_class.get(key) or self._new()
        adder.add(ciphertexts)
        self._by_class[key] = adder
        self.added |= {position}

    def sums(self, present: frozenset[int]) -> Mapping[int, bytes]:
        """Return the sums over these contributors, encoded. Raises RosterError as :func:`included_classes`."""
        classes = included_classes(self._terms, self.added, present)
        if len(classes) == 1:
            return self._by_class[min(classes)].sums()
        total = self._new()
        for key in sorted(classes):
            total.add(self._by_class[key].sums())
        return total.sums()

    def _new(self) -> Adder:
        return Adder(self._terms.profile, self._terms.session)
