"""Clients that lie about shares, bundles and uploads, and a server that does not check."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from protocols.interface import SumResult
from protocols.masking.messages import (
    RevealedShares,
    SealedShares,
)
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.run import run_session
from protocols.session import ClientId, Session
from tests.contracts.sessions import (
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.masking.parties import EveryonesMasking, ReproducibleMasking

PROFILES = pytest.mark.parametrize(
    "profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name
)
COUNT = 10
LIAR, VICTIM, GONE = "client-01", "client-02", "client-10"
Tamper = Callable[[ClientId, str, bytes], bytes]


def session_for(profile: MaskingProfile, length: int = 60, **terms: Any) -> Session:
    """Ten members; one segment for all of them and one for the first seven."""
    everyone = names(COUNT)
    parts = (segment(0, length, everyone, 3), segment(1, length, everyone[:7], 2))
    return make_session(COUNT, *parts, threshold=profile.threshold(COUNT), **terms)


def play(
    profile: MaskingProfile,
    *tampers: Tamper,
    session: Session | None = None,
    silent: Mapping[ClientId, str] | None = None,
    secure_sum: EveryonesMasking | None = None,
) -> SumResult:
    """A session on whose replies every tamper has a go."""
    session = session or session_for(profile)

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        for one in tampers:
            reply = one(client, stage, reply)
        return reply

    return run_session(
        secure_sum or ReproducibleMasking(profile=profile),
        session,
        make_inputs(session),
        bindings=same_bindings(session),
        silent_from=silent,
        tamper=tamper,
    )


def assert_exact(result: SumResult, session: Session, segments: Iterable[int] = (0, 1)) -> None:
    """These segments and no others are open, and are the sums over the survivors."""
    inputs = make_inputs(session)
    assert {index: values.tolist() for index, values in result.sums.items()} == {
        index: plain_sum(inputs, session.segments[index], result.survivors) for index in segments
    }


def moved(share: bytes, by: int = 1) -> Secret:
    """Another element of the field."""
    return Secret(((int.from_bytes(share, "big") + by) % (2**257 - 93)).to_bytes(33, "big"))


def revealing(liars: Iterable[ClientId], *kinds: str) -> Tamper:
    """Liars whose shares of these kinds are all wrong."""
    lying = set(liars)

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        if client not in lying or stage != "reveal_shares":
            return reply
        message = RevealedShares.from_bytes(reply)
        changed = {kind: {k: moved(s) for k, s in getattr(message, kind).items()} for kind in kinds}
        return replace(message, **changed).to_bytes()

    return tamper


def misdealing(dealer: ClientId, holders: Iterable[int]) -> Tamper:
    """A dealer whose bundles for some holders are not what it commits to."""
    cheated = set(holders)

    def tamper(client: ClientId, stage: str, reply: bytes) -> bytes:
        if client != dealer or stage != "share_keys":
            return reply
        message = SealedShares.from_bytes(reply)
        spoilt = {h: bytes(len(c)) if h in cheated else c for h, c in message.commitments.items()}
        return replace(message, commitments=spoilt).to_bytes()

    return tamper


def a_full_ring(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Sessions may use up the ring to the last bit; terms that do."""
    monkeypatch.setattr("protocols.session.capacity", lambda n, *, bits: (2 ** (bits - 1) - 1) // n)
    return {"ring_bits": 20, "input_bound": (2**19 - 1) // COUNT}


def most_liars(profile: MaskingProfile) -> int:
    """How many of the ten the profile stands: beside a server that follows the protocol all below the threshold."""
    return profile.threshold(COUNT) - 1 if profile is SEMI_HONEST else profile.corrupt(COUNT)
