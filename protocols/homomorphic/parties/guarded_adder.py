"""The aggregator's sums, added in a worker process that may die on any client's ciphertexts.

A worker that dies, or takes too long, is replaced once: nobody can tell whether it died over the ciphertexts that it was sent
last or a moment before. If the next one fails at the same, that costs the client whose ciphertexts it was at its place in the
round, and where it was busy with nobody (it is given again what the last one knew, or asked for sums) so does the call fail. The
sums so far are kept here and given to the next worker; every few clients they are fetched, so that memory does not grow with
the number of clients.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar, final

from protocols.errors import ServiceError, StageError
from protocols.homomorphic.parties.classed_adder import class_of, included_classes
from protocols.homomorphic.services.messages import SessionRequest, StoredSums
from protocols.homomorphic.services.services import Channel
from protocols.homomorphic.terms import EncryptionTerms

_FETCH_EVERY: Final = 8  # clients: what a dead worker makes us add again, at most
_Found = TypeVar("_Found")


def with_one_more_worker(work: Callable[[], _Found]) -> _Found:
    """Return the result of `work`, tried twice if need be; each try finds a live worker for itself.

    Raises:
        ServiceError: Two workers failed at it.
    """
    try:
        return work()
    except ServiceError as first:
        try:
            return work()
        except ServiceError as second:
            raise ServiceError(f"two workers in a row failed: {first}; {second}") from None


@final
class GuardedAdder:
    """The sums of one session.

    Args:
        terms: The terms of the session.
        worker: The worker that adds; several sessions may share one.
        part: Number of the sum within the session: that of a class, or 0.
        known: Sums to start from, which belong to no single client.
    """

    def __init__(
        self,
        terms: EncryptionTerms,
        worker: Channel,
        part: int = 0,
        *,
        known: Iterable[Mapping[int, bytes]] = (),
    ) -> None:
        self._terms = terms
        self._worker = worker
        self._part = part
        self._context = terms.session.context
        self._sums: Mapping[int, bytes] = {}
        self._since = list(known)
        self._incarnation = 0  # of the worker that holds what we have; 0 is none

    def add(self, ciphertexts: Mapping[int, bytes]) -> None:
        """Add one client's ciphertexts.

        Raises:
            CiphertextError: The bytes are no ciphertexts; the sums are as before.
            ServiceError: Two workers in a row died or took too long over them; the sums are as before.
        """
        if not ciphertexts:
            return
        if len(self._since) >= _FETCH_EVERY:
            self._sums, self._since = with_one_more_worker(self._summed), []
        with_one_more_worker(lambda: self._add(ciphertexts))
        self._since.append(ciphertexts)

    def take_back(self, ciphertexts: Mapping[int, bytes]) -> None:
        """Undo an addition, if it was the last one."""
        if self._since and self._since[-1] is ciphertexts:
            self._since.pop()
            self.forget()

    def sums(self) -> Mapping[int, bytes]:
        """Return the sums by segment index; the worker forgets the session.

        Raises:
            ServiceError: Two workers in a row died or took too long, or gave other segments than were added.
        """
        try:
            found = with_one_more_worker(self._summed)
        except ServiceError as error:
            raise ServiceError(f"the sums cannot be added up, and the round is lost: {error}") from None
        self.forget()
        return found

    def forget(self) -> None:
        """Have the worker forget the session. It may serve a whole run, and ended sessions would fill its memory."""
        if self._incarnation == 0:
            return
        self._incarnation = 0
        # A worker that has died has forgotten it already.
        with contextlib.suppress(ServiceError, StageError):
            self._worker.call(self._stored({}, last=True))

    def _bring_up_to_date(self) -> None:
        """Make sure that a live worker has the sums so far."""
        incarnation = self._worker.ready()
        if incarnation == self._incarnation:
            return
        self._incarnation = 0
        opening = SessionRequest(
            session=self._terms.session, profile=self._terms.profile.name, part=self._part
        )
        self._worker.call(opening.to_bytes())
        for ciphertexts in ([self._sums] if self._sums else []) + self._since:
            self._give(ciphertexts)
        self._incarnation = incarnation

    def _add(self, ciphertexts: Mapping[int, bytes]) -> None:
        """Have an up-to-date worker add them. One that fails must begin anew, as it may have added them."""
        with_one_more_worker(self._bring_up_to_date)
        try:
            self._give(ciphertexts)
        except ServiceError:
            self._incarnation = 0
            raise

    def _give(self, ciphertexts: Mapping[int, bytes]) -> None:
        self._worker.call(self._stored(ciphertexts))

    def _stored(self, ciphertexts: Mapping[int, bytes], *, last: bool = False) -> bytes:
        return StoredSums(
            context=self._context, part=self._part, ciphertexts=ciphertexts, last=last
        ).to_bytes()

    def _summed(self) -> Mapping[int, bytes]:
        """Return the sums so far from an up-to-date worker; one that gives none must begin anew."""
        self._bring_up_to_date()
        try:
            return self._fetch()
        except ServiceError:
            self._incarnation = 0
            raise

    def _fetch(self) -> Mapping[int, bytes]:
        answer = self._worker.call(self._stored({}))
        found, added = StoredSums.from_bytes(answer).ciphertexts, set(self._sums).union(*self._since)
        if set(found) != added:
            raise ServiceError(f"the worker has summed segments {sorted(found)}, not {sorted(added)}")
        return found


@final
class GuardedSums:
    """The sums of one session by class (:mod:`protocols.homomorphic.parties.classed_adder`), each in the worker."""

    def __init__(self, terms: EncryptionTerms, worker: Channel) -> None:
        self._terms = terms
        self._worker = worker
        self._by_class: dict[int, GuardedAdder] = {}

    def add(self, position: int, ciphertexts: Mapping[int, bytes]) -> None:
        """Add one client's ciphertexts; raises as :meth:`GuardedAdder.add`."""
        self._adder(class_of(self._terms, position)).add(ciphertexts)

    def take_back(self, position: int, ciphertexts: Mapping[int, bytes]) -> None:
        """Undo an addition, if it was the last one of its class."""
        self._adder(class_of(self._terms, position)).take_back(ciphertexts)

    def sums(self, added: frozenset[int], present: frozenset[int]) -> Mapping[int, bytes]:
        """Return the sums over these contributors; the worker forgets the session.

        Args:
            added: Positions of all whose inputs were added.
            present: Positions of the contributors: whole classes.

        Raises:
            RosterError: The contributors are not whole classes.
            ServiceError: As :meth:`GuardedAdder.sums`.
        """
        classes = sorted(included_classes(self._terms, added, present))
        found = [self._adder(key).sums() for key in classes]
        self.forget()
        if len(found) == 1:
            return found[0]
        return GuardedAdder(self._terms, self._worker, known=found).sums()

    def forget(self) -> None:
        """Have the worker forget the session."""
        for adder in self._by_class.values():
            adder.forget()

    def _adder(self, key: int) -> GuardedAdder:
        if key not in self._by_class:
            self._by_class[key] = GuardedAdder(self._terms, self._worker, key)
        return self._by_class[key]
