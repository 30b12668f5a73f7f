"""The input stage: uploads are checked and added as they arrive, and the one list of survivors is fixed."""

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np

from protocols.errors import InputError
from protocols.masking import checks
from protocols.masking.messages import MaskedInput, ShareDelivery, SurvivorList
from protocols.masking.server.opening import MaskedSums
from protocols.masking.server.reveal import RevealShares
from protocols.masking.server.stage import Stage
from protocols.masking.server.survivors import AgreeSurvivors
from protocols.masking.server.tracing import Dealings
from protocols.masking.terms import Graph, MaskingTerms
from protocols.profiles import SurvivorCheck
from protocols.ring import RingVector


@final
class MaskInput(Stage):
    """The stage that adds masked inputs as they arrive."""

    name: ClassVar[str] = "mask_input"

    def __init__(
        self,
        terms: MaskingTerms,
        *,
        view: bytes,
        mask_keys: Mapping[int, Mapping[int, bytes]],
        sealed: Mapping[int, Mapping[int, bytes]],
        dealings: Dealings,
        share_graph: Graph,
        mask_graphs: list[Graph],
    ) -> None:
        super().__init__(terms)
        self._view = view
        self._view_signatures: dict[int, bytes] = {}
        self._mask_keys = mask_keys
        self._sealed = sealed
        self._dealings = dealings
        self._share_graph = share_graph
        self._mask_graphs = mask_graphs
        # One accumulator per class and segment: a class that turns out too small is left out, whoever else was added.
        self._sums: dict[tuple[int | None, int], RingVector] = {}

    @property
    def dealings(self) -> Dealings:
        """The records of the dealings, including the disputes that uploads report."""
        return self._dealings

    @property
    def expected(self) -> frozenset[int]:
        """Everyone who has shared keys."""
        return frozenset(self._mask_keys)

    def request(self, position: int) -> bytes:
        """Return the list of who takes part, and the bundles sealed to one client."""
        senders = self._senders(position)
        return ShareDelivery(
            context=self.terms.context,
            recipient=position,
            participants=tuple(self._mask_keys),
            sealed={sender: self._sealed[sender][position] for sender in senders},
            digests=self._dealings.digests(senders, position),
        ).to_bytes()

    def _senders(self, position: int) -> frozenset[int]:
        """Return the senders of the bundles that a client is delivered."""
        return self._share_graph[position] & self._mask_keys.keys()

    def receive(self, position: int, reply: bytes) -> None:
        """Check a whole upload, then add it."""
        message = MaskedInput.from_bytes(reply)
        name = self._check_sender(position, message)
        lengths = {segment.index: segment.length for segment in self.session.segments_of(name)}
        if {index: len(vector) for index, vector in message.segments.items()} != lengths:
            raise InputError(f"{name}: the masked input must hold exactly its segments, whole")
        if message.ring_bits != self.session.ring_bits:
            raise InputError(f"{name}: ring_bits={message.ring_bits} must be {self.session.ring_bits}")
        checks.verify_view(self.terms, self._view, position=position, signature=message.view_signature)
        self._dealings.dispute(position, message.disputed, delivered=self._senders(position))
        if message.view_signature:
            self._view_signatures[position] = message.view_signature
        for index, vector in message.segments.items():
            key = (self._class_of(position), index)
            if key not in self._sums:
                self._sums[key] = np.zeros(len(vector), dtype=np.uint32)
            self._sums[key] += vector

    def _class_of(self, position: int) -> int | None:
        """Return the rank that is a client's class; None where all count together."""
        return self.session.ranks[position - 1] if self.session.class_quorum else None

    def close(self) -> Stage:
        """Fix the one list of survivors, without the members of classes that are too small to be opened."""
        self._check_enough()
        self._leave_out_thin_classes()
        survivors = SurvivorList(
            context=self.terms.context,
            survivors=tuple(sorted(self.answered)),
            dropped=tuple(sorted(self.expected - self.answered)),
            view_signatures={p: s for p, s in self._view_signatures.items() if p in self.answered},
        )
        masked = MaskedSums(
            terms=self.terms,
            survivors=survivors,
            mask_keys=self._mask_keys,
            dealings=self._dealings,
            share_graph=self._share_graph,
            mask_graphs=self._mask_graphs,
            sums=self._summed(),
        )
        reveal = RevealShares(masked)
        if self.terms.profile.survivor_check is SurvivorCheck.SIGNED_LIST:
            return AgreeSurvivors(self.terms, survivors, reveal)
        return reveal

    def _leave_out_thin_classes(self) -> None:
        """Count members of a class with too few survivors as dropped, in all segments; their uploads stay masked.

        Raises:
            BelowThresholdError: Too few are left.
        """
        for thin in self.terms.thin_classes(self.answered):
            self.answered -= set(thin)
            for segment in self.session.segments:
                self._sums.pop((self._class_of(thin[0]), segment.index), None)
        self._check_enough()

    def _summed(self) -> list[RingVector]:
        """Return the sum of every segment over its classes."""
        sums: list[RingVector] = []
        for segment in self.session.segments:
            parts = [vector for (_, index), vector in self._sums.items() if index == segment.index]
            total = parts[0] if parts else np.zeros(segment.length, dtype=np.uint32)
            for vector in parts[1:]:
                total += vector
            sums.append(total)
        return sums
