"""Screening at the aggregator: every client's copy once, by the verifier's numbers or its own, before any addition."""

from typing import final

from protocols.errors import ScreeningError, ServiceError
from protocols.homomorphic.screening.messages import ScreeningNumbers
from protocols.homomorphic.screening.screener import GuardedScreener
from protocols.homomorphic.screening.screening import Screened
from protocols.homomorphic.services.calls import Calls, Roles
from protocols.homomorphic.terms import EncryptionTerms


@final
class UpdatesScreening:
    """The screening of one session.

    Attributes:
        screened: By position: the result of screening a client's update.
    """

    def __init__(self, terms: EncryptionTerms, roles: Roles, calls: Calls) -> None:
        self._terms = terms
        self._roles = roles
        self._calls = calls
        self._screener: GuardedScreener | None = None
        self._begun = False
        self.screened: dict[int, Screened] = {}

    def screen(self, position: int, copy: bytes) -> None:
        """Have one update's numbers computed and opened; once per client, whatever the outcome.

        Raises:
            ScreeningError: It is screened out, or was screened before.
            ServiceError: A service is gone or refuses.
        """
        name = self._terms.session.client_at(position)
        if position in self.screened:
            raise ScreeningError(f"{name}: was screened before; a client is screened once per session")
        result = self._calls.open_numbers(self._numbers(position, copy))
        self.screened[position] = result.screened
        try:
            result.screened.check()
        except ScreeningError as error:
            raise ScreeningError(f"{name}: {error}") from None

    def _numbers(self, position: int, copy: bytes) -> ScreeningNumbers:
        if not self._begun:
            self._begin()
        if self._screener is None:
            return self._calls.verified_numbers(position, copy)
        return self._screener.numbers(self._terms.session.client_at(position), copy)

    def _begin(self) -> None:
        if not self._calls.verified and self._roles.screener is None:
            raise ServiceError("the terms screen updates, and this server has no screener")
        keys = self._calls.evaluation_keys()
        if not self._calls.verified and self._roles.screener is not None:
            self._screener = GuardedScreener(self._terms, self._roles.screener, keys, self._roles.reference())
        self._begun = True
