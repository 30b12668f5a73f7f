"""The contract's own parts: abstract roles, frozen records, and the input check that all implementations share."""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from protocols.errors import InputError
from protocols.interface import (
    SecureSum,
    SegmentInput,
    SumClient,
    SumResult,
    SumServer,
    check_binding,
    check_inputs,
    reason_to_reject,
)
from protocols.masking.secure_sum import Masking
from protocols.plain import Plain
from tests.contracts.case import BAD_INPUTS, good_input
from tests.contracts.sessions import MODEL, make_session, names, segment


@pytest.mark.parametrize("role", [SecureSum, SumClient, SumServer])
def test_roles_are_abstract(role: type) -> None:
    """A role without an implementation cannot be made."""
    with pytest.raises(TypeError, match="abstract"):
        role()


@pytest.mark.parametrize(
    ("role", "names_of_parts"),
    [
        (SecureSum, {"stages", "client", "server"}),
        (SumClient, {"reply", "contribute", "end"}),
        (SumServer, {"requests", "receive", "close_stage", "contributors", "result"}),
    ],
)
def test_a_role_leaves_no_part_out(role: type, names_of_parts: set[str]) -> None:
    """An implementation must say how a client ends and which stages there are, like everything else."""
    assert role.__abstractmethods__ == names_of_parts  # type: ignore[attr-defined]


@pytest.mark.parametrize("secure_sum", [Plain(), Masking()], ids=lambda secure_sum: secure_sum.name)
def test_stages_belong_to_an_instance(secure_sum: SecureSum) -> None:
    """The stages are read from a secure sum, which may have more or fewer than another of its class."""
    assert isinstance(type(secure_sum).stages, property)
    assert secure_sum.input_stage in secure_sum.stages
    with pytest.raises(AttributeError):
        secure_sum.stages = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (SegmentInput(values=np.zeros(1, dtype=np.int64), binding=MODEL), "values"),
        (SumResult(survivors=(), sums={}, refused={}), "sums"),
    ],
)
def test_records_are_frozen(record: Any, field: str) -> None:
    """The fields of inputs and results cannot be assigned."""
    with pytest.raises(FrozenInstanceError):
        setattr(record, field, None)


@pytest.mark.parametrize("fault", BAD_INPUTS)
def test_inputs_that_do_not_fit_are_refused(fault: str) -> None:
    """The shared check raises InputError for each fault that the contract names."""
    session = make_session()

    with pytest.raises(InputError):
        check_inputs(session, "client-01", BAD_INPUTS[fault])


@pytest.mark.parametrize("value", [-1000, -999, 0, 999, 1000])
def test_values_up_to_the_bound_are_accepted(value: int) -> None:
    """The bound itself, of either sign, is legal, and one beyond it is not."""
    session = make_session()
    given = SegmentInput(values=np.full(5, value, dtype=np.int64), binding=MODEL)
    beyond = SegmentInput(values=np.array([0, 0, 0, 0, 1001 if value > 0 else -1001]), binding=MODEL)

    check_inputs(session, "client-01", {0: given})

    with pytest.raises(InputError, match="segment 0"):
        check_inputs(session, "client-01", {0: beyond})


def test_each_member_owes_its_own_segments() -> None:
    """Inputs are checked against the segments of the member they come from."""
    session = make_session(4, segment(0, 5, names(4)), segment(1, 5, names(4)[:2]))
    both, one = {0: good_input(), 1: good_input()}, {0: good_input()}

    check_inputs(session, "client-01", both)
    check_inputs(session, "client-04", one)

    with pytest.raises(InputError, match="client-01"):
        check_inputs(session, "client-01", one)
    with pytest.raises(InputError, match="client-04"):
        check_inputs(session, "client-04", both)


@pytest.mark.parametrize("binding", [None, b"", bytes(31), bytes(33)])
def test_bindings_have_32_bytes(binding: bytes | None) -> None:
    """A missing binding, or one of another size, raises InputError that names the segment."""
    with pytest.raises(InputError, match="segment 7"):
        check_binding(7, binding)


def test_a_good_binding_is_handed_back() -> None:
    """A binding of 32 bytes passes unchanged."""
    assert check_binding(0, MODEL) == MODEL


@pytest.mark.parametrize("present", [1, 2, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_are_held_to_what_the_survivors_can_reach(present: int, sign: int) -> None:
    """A sum of `present` inputs at the bound is accepted; one more, in any place, is a reason to reject."""
    session = make_session(4, input_bound=1000)
    reachable = np.array([0, sign * present * 1000, 5], dtype=np.int64)

    reason = reason_to_reject(session, reachable, present=present)

    assert reason == ""
    for place in range(3):
        beyond = reachable.copy()
        beyond[place] = sign * (present * 1000 + 1)
        assert f"{present} inputs" in reason_to_reject(session, beyond, present=present)
