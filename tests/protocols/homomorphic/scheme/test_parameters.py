"""Profiles hold what they say: primes, fields, security and noise, checked against the library and against real sums."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tenseal import sealapi

from protocols.errors import CapacityError, SessionError
from protocols.homomorphic.scheme import bfv, fields, polynomials, seal_form
from protocols.homomorphic.scheme.parameters import (
    BFV_2X20,
    BFV_2X29,
    BFV_3X12,
    LEAST_SIGMAS,
    PROFILES,
    EncryptionProfile,
    by_name,
)
from protocols.ring import IntegerVector
from protocols.run import run_session
from protocols.session import Session
from tests.contracts.sessions import (
    PROPERTY,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)
from tests.protocols.homomorphic.meeting import EveryonesHomomorphic

EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


def encrypt(profile: EncryptionProfile, key: bfv.PublicKey, values: IntegerVector, members: int) -> bytes:
    """The bytes that a client sends."""
    return polynomials.encode(
        key.encrypt(fields.to_slots(values, profile, members=members)), profile.ciphertext_moduli
    )


def summed(profile: EncryptionProfile, sent: list[bytes], length: int) -> polynomials.Polynomials:
    """What an aggregator makes of them."""
    moduli, count = profile.ciphertext_moduli, profile.ciphertexts(length)
    first, *rest = (
        polynomials.decode(data, count=count, moduli=moduli, degree=profile.degree) for data in sent
    )
    for other in rest:
        polynomials.add(first, other, moduli)
    return first


@EVERY_PROFILE
def test_primes_are_those_of_the_library(profile: EncryptionProfile) -> None:
    """The library, asked for coefficients of these sizes, has these primes, accepts t for batching, and calls it secure."""
    chain = bfv._new_context(profile).seal_context().data

    assert chain.parameters_set()
    found = [modulus.value() for modulus in chain.key_context_data().parms().coeff_modulus()]
    assert tuple(found) == profile.moduli
    assert profile.plain_modulus % (2 * profile.degree) == 1
    # The Homomorphic Encryption Standard, table 1: N = 4096, ternary secret, 128 bits of security.
    assert sum(modulus.bit_length() for modulus in profile.moduli) <= 109


def test_profiles_are_found_by_name() -> None:
    """Every name gives its profile; another one is refused with the list."""
    assert [by_name(profile.name) for profile in PROFILES] == list(PROFILES)
    with pytest.raises(SessionError, match="bfv-2x20, bfv-3x12, bfv-2x29"):
        by_name("bfv")


def test_fields_that_do_not_fit_a_slot_are_refused() -> None:
    """One bit more to a field, or a prime beyond a machine word, raises CapacityError."""
    for changes in ({"field_bits": 21}, {"fields": 3}, {"moduli": (2**64 - 59, 3)}):
        with pytest.raises(CapacityError):
            replace(BFV_2X20, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("profile", "bits", "most"),
    [
        (BFV_2X20, 16, 12),
        (BFV_2X20, 15, 24),
        (BFV_2X20, 8, 1151),
        (BFV_3X12, 8, 12),
        (BFV_2X29, 16, 1151),
        (BFV_2X29, 24, 24),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_so_many_clients_fit_and_not_one_more(profile: EncryptionProfile, bits: int, most: int) -> None:
    """A session at the limit is accepted; with one client more it is refused with the numbers."""
    bound = 2 ** (bits - 1) - 1

    profile.check_session(make_session(most, input_bound=bound))

    named = SessionError if most == 1151 else CapacityError
    expected = (
        f"{most + 1} (members must be <= {most}"
        f"|inputs would take more than three quarters of a field of {profile.field_bits} bits)"
    )
    with pytest.raises(named, match=expected):
        profile.check_session(make_session(most + 1, input_bound=bound))


@EVERY_PROFILE
@PROPERTY
@given(data=st.data())
def test_packed_fields_never_touch(profile: EncryptionProfile, data: st.DataObject) -> None:
    """Whatever the clients add up to, the sum of their slots holds every field's sum, extremes and padding included."""
    members = data.draw(st.integers(2, 40))
    offset = profile.offset(members)
    length = data.draw(st.integers(1, 30))
    values = [
        np.array(
            data.draw(st.lists(st.sampled_from([-offset, 0, 1, offset]), min_size=length, max_size=length))
        )
        for _ in range(data.draw(st.integers(1, members)))
    ]

    slots = sum(fields.to_slots(each, profile, members=members) for each in values) % profile.plain_modulus
    found = fields.from_slots(slots, profile, members=members, contributors=len(values))

    assert found[:length].tolist() == [
        sum(column) for column in zip(*(v.tolist() for v in values), strict=True)
    ]
    assert not found[length:].any()


@EVERY_PROFILE
@PROPERTY
@given(
    values=st.lists(st.integers(-(2**45), 2**45), min_size=2, max_size=12), moved=st.integers(-(2**45), 2**45)
)
def test_slots_of_values_that_do_not_fit_add_up_to_a_function_of_the_sum(
    profile: EncryptionProfile, values: list[int], moved: int
) -> None:
    """Whoever of two clients brings the part that leaves its field, the sum of slots is the same."""
    one, zeros = np.array(values), np.zeros(len(values), dtype=np.int64)

    def summed_slots(*summands: IntegerVector) -> list[int]:
        each = [fields.to_slots(summand, profile, members=4) for summand in summands]
        assert all((slots >= 0).all() and (slots < profile.plain_modulus).all() for slots in each)
        return list((sum(each) % profile.plain_modulus)[0])

    assert summed_slots(one - moved, zeros + moved) == summed_slots(one, zeros) == summed_slots(zeros, one)


@pytest.mark.parametrize(
    ("profile", "members"),
    [(BFV_2X20, 12), (BFV_3X12, 12), (BFV_2X29, 40)],
    ids=["2x20", "3x12", "2x29"],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_are_exact_at_the_limit(profile: EncryptionProfile, members: int, sign: int) -> None:
    """As many clients as 16 or 8 bits allow, all at the bound, over a ciphertext's border: the sum is exact."""
    secret = bfv.RoundSecret.generate(profile)
    key = bfv.PublicKey(profile, secret.public_key())
    length = profile.values_per_ciphertext + 3
    bound = profile.offset(members)
    values = np.full(length, sign * bound)
    values[::7] = 0

    sent = [encrypt(profile, key, values, members) for _ in range(members)]
    slots = secret.decrypt(summed(profile, sent, length))

    found = fields.from_slots(slots, profile, members=members, contributors=members)
    assert found[:length].tolist() == (members * values).tolist()
    assert not found[length:].any()


@EVERY_PROFILE
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_every_length_has_its_own_ciphertexts(profile: EncryptionProfile, beside: int) -> None:
    """Around a border, a vector takes whole ciphertexts and comes back exactly."""
    secret = bfv.RoundSecret.generate(profile)
    key = bfv.PublicKey(profile, secret.public_key())
    length = profile.values_per_ciphertext + beside
    values = np.random.default_rng(0).integers(-100, 101, length)

    sent = encrypt(profile, key, values, 4)

    count = profile.ciphertexts(length)
    assert count == (2 if beside > 0 else 1)
    assert len(sent) == polynomials.size_of(count, moduli=profile.ciphertext_moduli, degree=profile.degree)
    slots = secret.decrypt(summed(profile, [sent], length))
    assert fields.from_slots(slots, profile, members=4, contributors=1)[:length].tolist() == values.tolist()


def noise_of(secret: bfv.RoundSecret, pair: polynomials.Polynomials) -> int:
    """What is left of a ciphertext's noise budget, in bits."""
    stream = seal_form.pair_stream(pair, bfv._shape(secret._profile).ciphertext)
    data = seal_form.vector([stream], length=secret._profile.degree)
    (ciphertext,) = bfv.library().bfv_vector_from(secret._context, data).ciphertext()
    context = secret._context
    budget: int = sealapi.Decryptor(
        context.seal_context().data, context.secret_key().data
    ).invariant_noise_budget(ciphertext)
    return budget


@EVERY_PROFILE
@pytest.mark.parametrize("summands", [1, 64])
def test_real_noise_is_as_small_as_the_profile_counts_on(profile: EncryptionProfile, summands: int) -> None:
    """The largest of 4,096 coefficients' noise is about four of the standard deviations that `sigmas` assumes.

    The library's budget is log2 of (limit / largest noise), rounded down, so it must lie within a bit or so of
    log2(sigmas / 4); fresh ciphertexts and sums of many are measured.
    """
    secret = bfv.RoundSecret.generate(profile)
    key = bfv.PublicKey(profile, secret.public_key())
    rows = np.random.default_rng(0).integers(0, profile.plain_modulus // 100, (summands, profile.degree))
    pairs = key.encrypt(rows)
    total = pairs[:1].copy()
    for place in range(1, summands):
        polynomials.add(total, pairs[place : place + 1], profile.ciphertext_moduli)

    budget = noise_of(secret, total[0])

    assumed = np.log2(profile.sigmas(summands) / 4.2)
    assert assumed - 1.7 <= budget <= assumed + 0.7


@EVERY_PROFILE
def test_the_most_members_keep_their_distance(profile: EncryptionProfile) -> None:
    """At the limit a wrong decryption is so many standard deviations away, one client further it is not."""
    most = profile.most_members

    assert profile.sigmas(most) >= LEAST_SIGMAS > profile.sigmas(most + 1)


@st.composite
def full_sessions(draw: st.DrawFn, most: int) -> Session:
    """Cohorts up to a profile's limit, with segments whose lengths lie around a ciphertext's border."""
    members = names(draw(st.one_of(st.just(most), st.integers(2, most))))
    segments = []
    for index in range(draw(st.integers(1, 2))):
        chosen = tuple(sorted(draw(st.sets(st.sampled_from(members), min_size=1))))
        length = draw(st.sampled_from([1, 2, 4095, 4097, 8191, 8192, 8193]))
        segments.append(segment(index, length, chosen))
    return make_session(len(members), *segments, input_bound=min(2**15 - 1, BFV_2X20.offset(most)))


@settings(parent=PROPERTY, max_examples=8)
@given(session=full_sessions(12), seed=st.integers(0, 2**32 - 1))
def test_whole_sessions_up_to_the_limit_are_exact(session: Session, seed: int) -> None:
    """Whatever the cohort, segments and lengths, with 16-bit inputs of up to 12 clients every sum is the plain one."""
    assert session.input_bound == 2**15 - 1
    inputs = make_inputs(session, seed=seed)

    result = run_session(EveryonesHomomorphic(), session, inputs, bindings=same_bindings(session))

    assert {index: values.tolist() for index, values in result.sums.items()} == {
        part.index: plain_sum(inputs, part, session.members) for part in session.segments
    }
