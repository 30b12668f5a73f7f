"""The optional stage in which everyone signs the survivor list before anyone reveals."""

from typing import ClassVar, final

from protocols.errors import IdentityError
from protocols.masking import checks
from protocols.masking.messages import SignedSurvivors, SurvivorList, SurvivorSignatures
from protocols.masking.server.reveal import RevealShares
from protocols.masking.server.stage import Stage
from protocols.masking.server.tracing import Dealings
from protocols.masking.terms import MaskingTerms


@final
class AgreeSurvivors(Stage):
    """The stage that collects everyone's signature of the survivor list."""

    name: ClassVar[str] = "agree_survivors"

    def __init__(self, terms: MaskingTerms, survivors: SurvivorList, reveal: RevealShares) -> None:
        super().__init__(terms)
        self._list = survivors
        self._reveal = reveal
        self._signatures: dict[int, bytes] = {}

    @property
    def dealings(self) -> Dealings:
        """The dealings of the input stage, unchanged."""
        return self._reveal.dealings

    @property
    def expected(self) -> frozenset[int]:
        """The survivors."""
        return frozenset(self._list.survivors)

    def request(self, position: int) -> bytes:  # noqa: ARG002
        """Return the survivor list."""
        return self._list.to_bytes()

    def receive(self, position: int, reply: bytes) -> None:
        """Keep one signature of this very list."""
        message = SignedSurvivors.from_bytes(reply)
        name = self._check_sender(position, message)
        try:
            checks.verify_survivors(self.terms, self._list, position=position, signature=message.signature)
        except IdentityError as error:
            raise type(error)(f"{name}: {error}") from None
        self._signatures[position] = message.signature

    def close(self) -> Stage:
        """Send everyone's signatures to those who gave one."""
        self._check_enough()
        signatures = {position: self._signatures[position] for position in sorted(self.answered)}
        shown = SurvivorSignatures(context=self.terms.context, signatures=signatures)
        self._reveal.await_only(frozenset(self.answered), shown.to_bytes())
        return self._reveal
