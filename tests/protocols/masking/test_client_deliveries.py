"""What a client refuses of share deliveries, and how a bundle that cannot be used is put aside."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    InputError,
    ProtocolError,
    RosterError,
    SealError,
)
from protocols.masking import client as steps
from protocols.masking.client import create_masked_input, create_revealed_shares, create_sealed_shares
from protocols.masking.messages import (
    SegmentShares,
    ShareBundle,
    ShareDelivery,
)
from protocols.primitives.sealed import seal
from protocols.primitives.secret import Secret
from tests.protocols.masking.parties import (
    as_terms,
    directory_of,
    share,
    stream,
    survivor_list,
    with_sealed,
    without,
)
from tests.protocols.masking.played_client import (
    ADVERTISED,
    DELIVERIES,
    DIRECTORY,
    INPUTS,
    MASKED,
    ME,
    OTHER_SESSION,
    OTHER_TERMS,
    SESSION,
    SHARED,
    Change,
    directory,
)

TERMS = as_terms(SESSION)


# The share delivery.


def delivered(sealed: dict[int, bytes]) -> ShareDelivery:
    """The right delivery with other bundles from some senders."""
    return with_sealed(DELIVERIES[ME], sealed)


def tampered(place: int) -> ShareDelivery:
    """The right delivery with one bit of the bundle of position 2 flipped."""
    bundle = bytearray(DELIVERIES[ME].sealed[2])
    bundle[place] ^= 1
    return delivered({2: bytes(bundle)})


def sealed_by_2(plaintext: bytes) -> bytes:
    """Any plaintext, sealed by position 2 for position 1 with the right key of the session."""
    key = steps._sealing_key(TERMS, SHARED[2].sealing_secrets[ME], sender=2, recipient=ME)
    return seal(key, Secret(plaintext), context=TERMS.context)


def bundle_for(indexes: Iterable[int], *, extra: int = 0) -> bytes:
    """A bundle with shares of these segments, sealed by position 2, which owes shares of 0 and 1, no extra ones."""
    share_of_any = Secret(bytes(33))
    shares = SegmentShares(mask_key=share_of_any, self_mask=share_of_any, extra=(share_of_any,) * extra)
    return sealed_by_2(ShareBundle(segments=dict.fromkeys(indexes, shares)).to_bytes())


def from_another_session() -> bytes:
    """The bundle that position 2 sealed for position 1 in another attempt, with the same keys."""
    # The worst case: nothing but the context differs.
    entries = tuple(replace(entry, context=OTHER_TERMS.context) for entry in DIRECTORY.advertisements)
    states = {
        me: replace(state, terms=OTHER_TERMS, advertisement=entries[me - 1])
        for me, state in ADVERTISED.items()
    }
    return share(OTHER_SESSION, states, directory_of(OTHER_SESSION, entries))[1][ME].sealed[2]


def participating(*positions: int) -> ShareDelivery:
    """The right bundles with another list of participants."""
    return replace(DELIVERIES[ME], participants=positions)


BAD_DELIVERIES: dict[str, tuple[type[ProtocolError], Change]] = {
    "for another": (RosterError, lambda: DELIVERIES[2]),
    "mine under another's name": (RosterError, lambda: replace(DELIVERIES[ME], recipient=2)),
    "from myself": (RosterError, lambda: delivered({ME: DELIVERIES[ME].sealed[2]})),
    "from a stranger": (RosterError, lambda: delivered({6: DELIVERIES[ME].sealed[2]})),
    "from position zero": (RosterError, lambda: delivered({0: DELIVERIES[ME].sealed[2]})),
    "too short": (BelowThresholdError, lambda: without(DELIVERIES[ME], 3, 4, 5)),
    "empty": (BelowThresholdError, lambda: without(DELIVERIES[ME], 2, 3, 4, 5)),
    "a participant without a bundle": (
        RosterError,
        lambda: replace(without(DELIVERIES[ME], 3), participants=(1, 2, 3, 4, 5)),
    ),
    "a bundle of no participant": (RosterError, lambda: participating(1, 2, 4, 5)),
    "without me": (RosterError, lambda: participating(2, 3, 4, 5)),
    "participants but no bundles": (RosterError, lambda: replace(DELIVERIES[ME], sealed={})),
    "nobody takes part": (RosterError, participating),
    "a stranger takes part": (RosterError, lambda: participating(1, 2, 3, 4, 5, 6)),
    "position zero takes part": (RosterError, lambda: participating(0, 1, 2, 3, 4, 5)),
    "another session": (ContextError, lambda: replace(DELIVERIES[ME], context=OTHER_TERMS.context)),
    "a bundle without a digest": (
        RosterError,
        lambda: replace(DELIVERIES[ME], digests={s: d for s, d in DELIVERIES[ME].digests.items() if s != 2}),
    ),
    "a digest without a bundle": (
        RosterError,
        lambda: replace(DELIVERIES[ME], digests={**DELIVERIES[ME].digests, ME: bytes(32)}),
    ),
    "bundles of which too few can be used": (
        SealError,
        lambda: delivered(dict.fromkeys((2, 3, 5), b"")),
    ),
}


@pytest.mark.parametrize("fault", BAD_DELIVERIES)
def test_bad_deliveries_are_refused(fault: str) -> None:
    """A delivery that breaks a rule raises its named error, and no input leaves the client."""
    error, make = BAD_DELIVERIES[fault]
    bad = make()

    with pytest.raises(error) as caught:
        create_masked_input(SHARED[ME], bad, INPUTS["client-01"])

    assert caught.type is error


BAD_BUNDLES: dict[str, Change] = {
    "an empty bundle": lambda: delivered({2: b""}),
    "a bundle cut short": lambda: delivered({2: DELIVERIES[ME].sealed[2][:-1]}),
    "a bundle with a byte more": lambda: delivered({2: DELIVERIES[ME].sealed[2] + b"\x00"}),
    "a bundle of another sender": lambda: delivered({2: DELIVERIES[ME].sealed[3]}),
    "a bundle for another recipient": lambda: delivered({2: DELIVERIES[3].sealed[2]}),
    "my own bundle for the peer, reflected": lambda: delivered({2: DELIVERIES[2].sealed[ME]}),
    "a bundle sealed in another session": lambda: delivered({2: from_another_session()}),
    "a bundle that is no bundle": lambda: delivered({2: sealed_by_2(b"garbage")}),
    "an empty plaintext": lambda: delivered({2: sealed_by_2(b"")}),
    "a bundle without segment shares": lambda: delivered({2: bundle_for(())}),
    "a bundle that lacks a segment": lambda: delivered({2: bundle_for((0,))}),
    "a bundle with one segment too many": lambda: delivered({2: bundle_for((0, 1, 2))}),
    "a bundle with another segment": lambda: delivered({2: bundle_for((0, 2))}),
    "a bundle with an extra secret": lambda: delivered({2: bundle_for((0, 1), extra=1)}),
    "a bundle of other shares": lambda: delivered({2: bundle_for((0, 1))}),
    "a bundle of another's shares": lambda: delivered({2: sealed_by_2(MASKED[ME].bundles[3].to_bytes())}),
    "a digest of other commitments": lambda: replace(
        DELIVERIES[ME], digests={**DELIVERIES[ME].digests, 2: bytes(32)}
    ),
    "another's digest": lambda: replace(
        DELIVERIES[ME], digests={**DELIVERIES[ME].digests, 2: DELIVERIES[ME].digests[3]}
    ),
    "a digest for another holder": lambda: replace(
        DELIVERIES[ME], digests={**DELIVERIES[ME].digests, 2: DELIVERIES[3].digests[2]}
    ),
}


@pytest.mark.parametrize("fault", BAD_BUNDLES)
def test_a_bundle_that_cannot_be_used_is_put_aside_and_its_dealer_named(fault: str) -> None:
    """The client uploads what it would have uploaded, says whose bundle it is, and reveals no share of that dealer."""
    bad = BAD_BUNDLES[fault]()

    state, upload = create_masked_input(SHARED[ME], bad, INPUTS["client-01"])
    _, revealed = create_revealed_shares(state, survivor_list(SESSION, (1, 2, 3, 4, 5)))

    right = create_masked_input(SHARED[ME], DELIVERIES[ME], INPUTS["client-01"]).message
    assert (upload.disputed, right.disputed) == ((2,), ())
    assert replace(upload, disputed=()).to_bytes() == right.to_bytes()
    assert {owner for owner, _ in revealed.self_mask_shares} == {1, 3, 4, 5}


def test_a_made_up_bundle_fits_with_its_own_digest() -> None:
    """The planted bundles are put aside for what is in them: one that fits its digest, from the same helper, is kept."""
    shares = ShareBundle(
        segments=dict.fromkeys((0, 1), SegmentShares(mask_key=Secret(bytes(33)), self_mask=Secret(bytes(33))))
    )
    made = TERMS.commitments.bundle(shares, owner=2, holder=ME)
    digests = {**DELIVERIES[ME].digests, 2: TERMS.commitments.digest(made, owner=2, holder=ME)}

    state, upload = create_masked_input(
        SHARED[ME], replace(delivered({2: bundle_for((0, 1))}), digests=digests), INPUTS["client-01"]
    )

    assert state.bundles[2] == shares
    assert upload.disputed == ()


def test_someone_who_did_not_advertise_takes_no_part() -> None:
    """A participant that was not in the directory is a stranger, though it is a member of the session."""
    shorter = directory(lambda sender, entry: entry if sender != 5 else None)
    state, _ = create_sealed_shares(ADVERTISED[ME], shorter, stream(f" {ME}"))

    with pytest.raises(RosterError, match="position 5 shares without having advertised"):
        create_masked_input(state, DELIVERIES[ME], INPUTS["client-01"])


def test_a_change_of_any_byte_of_a_bundle_puts_it_aside() -> None:
    """Flipping one bit in any byte of one sealed bundle makes the client dispute that bundle and no other."""
    for place in range(len(DELIVERIES[ME].sealed[2])):
        state, upload = create_masked_input(SHARED[ME], tampered(place), INPUTS["client-01"])

        assert upload.disputed == (2,)
        assert set(state.bundles) == {1, 3, 4, 5}


def test_inputs_are_checked_before_they_are_masked() -> None:
    """Inputs that do not fit raise InputError from the step itself."""
    with pytest.raises(InputError):
        create_masked_input(SHARED[ME], DELIVERIES[ME], INPUTS["client-05"])
