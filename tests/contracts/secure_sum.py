"""What every secure sum must do: plain, masking, homomorphic.

A subclass whose name begins with `Test` sets `secure_sum` and says, in two hooks, how its implementation keeps
clients with different bindings from agreeing on a sum. Further hooks say where it asks for more than the sessions do:
another ring, a higher threshold, a higher quorum, another error for a reply that lost its signature.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    InputError,
    ProtocolError,
    RosterError,
    StageError,
    WireError,
)
from protocols.interface import SecureSum, SegmentInput, SumResult
from protocols.primitives.secret import Secret
from protocols.session import Segment, Session
from tests.contracts.sessions import (
    MODEL,
    OTHER_MODEL,
    PROPERTY,
    Inputs,
    Play,
    foretell,
    largest_sum,
    make_inputs,
    make_session,
    names,
    narrowed,
    own_quorum,
    plain_sum,
    same_bindings,
    segment,
    sessions,
    silences,
)

HEADER_BITS = 32  # magic, version, type
FIRST, SECOND, THIRD, LAST = names(4)


def good_input(length: int = 5) -> SegmentInput:
    """A summand that fits the session of `make_session`."""
    return SegmentInput(values=np.arange(length, dtype=np.int64), binding=MODEL)


def replaced(values: object, binding: object = MODEL) -> dict[int, SegmentInput]:
    """The inputs of one segment with something wrong in them."""
    return {0: SegmentInput(values=values, binding=binding)}  # type: ignore[arg-type]


BAD_INPUTS: dict[str, dict[int, SegmentInput]] = {
    "no segment": {},
    "a foreign segment": {1: good_input()},
    "one segment too many": {0: good_input(), 1: good_input()},
    "int32": replaced(np.zeros(5, dtype=np.int32)),
    "uint64": replaced(np.zeros(5, dtype=np.uint64)),
    "float": replaced(np.zeros(5)),
    "bool": replaced(np.zeros(5, dtype=bool)),
    "too short": replaced(np.zeros(4, dtype=np.int64)),
    "too long": replaced(np.zeros(6, dtype=np.int64)),
    "a scalar that would broadcast": replaced(np.zeros((), dtype=np.int64)),
    "one value that would broadcast": replaced(np.zeros(1, dtype=np.int64)),
    "a matrix": replaced(np.zeros((1, 5), dtype=np.int64)),
    "one above the bound": replaced(np.array([0, 0, 0, 0, 1001])),
    "one below the bound": replaced(np.array([0, 0, 0, 0, -1001])),
    "the smallest int64": replaced(np.array([0, 0, 0, 0, -(2**63)])),
    "a multiple of the ring": replaced(np.array([0, 0, 0, 0, 2**32])),
    "no binding": replaced(np.zeros(5, dtype=np.int64), None),
    "an empty binding": replaced(np.zeros(5, dtype=np.int64), b""),
    "a short binding": replaced(np.zeros(5, dtype=np.int64), MODEL[:-1]),
    "a long binding": replaced(np.zeros(5, dtype=np.int64), MODEL + b"\x00"),
}


class SecureSumContract(ABC):
    """The conformance tests of one implementation."""

    secure_sum: ClassVar[SecureSum]
    ring_bits: ClassVar[int] = 32
    refusal_of_a_foreign_first_request: ClassVar[type[ProtocolError]] = StageError
    # Of clients that were given another model: an implementation that binds all segments to one has no other.
    odd_bindings: ClassVar[dict[int, bytes]] = {0: OTHER_MODEL}

    @abstractmethod
    def check_mixed_bindings(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """Assert what the implementation does with segment 0 when its clients were bound to different models."""

    @abstractmethod
    def check_foreign_server_binding(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """Assert what it does with segment 0 when the server's binding is not that of the clients."""

    def check_other_segments(self, result: SumResult, sums_of_inputs: dict[int, list[int]]) -> None:
        """Assert what it does with segment 1 in either case, where segments are bound one by one."""
        assert result.sums[1].tolist() == sums_of_inputs[1]

    def least_threshold(self, count: int) -> int:
        """The smallest threshold that the implementation takes among so many members."""
        return count // 2 + 1

    def quorum(self, session: Session, part: Segment) -> int:
        """The surviving holders below which a segment stays closed."""
        return own_quorum(session, part)

    def refusal_of_a_cut(self, stage: str, missing: int) -> type[ProtocolError]:
        """The error for a reply that lacks so many bytes at its end."""
        return WireError

    def fitted(self, session: Session) -> Session:
        """The session in the ring under test and with a threshold that the implementation takes."""
        least = self.least_threshold(len(session.members))
        return narrowed(replace(session, threshold=max(session.threshold, least)), self.ring_bits)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test that takes a `stage` once for each stage of the implementation."""
        if "stage" in metafunc.fixturenames:
            metafunc.parametrize("stage", self.secure_sum.stages)

    def started(self, session: Session | None = None, inputs: Inputs | None = None) -> Play:
        """A session of four clients, or the given one, that has not begun."""
        return Play(self.secure_sum, self.fitted(session or make_session()), inputs)

    def finished(
        self, session: Session, inputs: Inputs, silent_from: dict[str, str] | None = None
    ) -> SumResult:
        """The result of a session in which some clients fall silent."""
        play = self.started(session, inputs)
        stages = self.secure_sum.stages
        for number, stage in enumerate(stages):
            play.play(stage, [m for m, last in (silent_from or {}).items() if stages.index(last) <= number])
        return play.server.result(same_bindings(play.session))

    # Exact sums over the survivors.

    def test_the_input_stage_is_one_of_its_stages(self) -> None:
        """The stages have distinct names and one of them is the input stage."""
        stages = self.secure_sum.stages

        assert len(set(stages)) == len(stages) > 0
        assert self.secure_sum.input_stage in stages
        assert self.secure_sum.name

    @PROPERTY
    @given(session=sessions(), seed=st.integers(0, 2**32 - 1))
    def test_sums_are_exact_when_everyone_stays(self, session: Session, seed: int) -> None:
        """Each segment's sum is the integer sum of its members' inputs, be they holders or padding."""
        session = self.fitted(session)
        inputs = make_inputs(session, seed=seed)

        result = self.finished(session, inputs)

        assert result.survivors == session.members
        assert not result.refused
        assert {index: values.tolist() for index, values in result.sums.items()} == {
            part.index: plain_sum(inputs, part, session.members) for part in session.segments
        }

    @pytest.mark.parametrize("count", [2, 3, 5, 7])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_sums_are_exact_at_full_capacity(self, count: int, sign: int) -> None:
        """Inputs of the largest magnitude that the ring admits sum without wrapping."""
        bound = largest_sum(self.ring_bits) // count
        session = make_session(count, input_bound=bound, ring_bits=self.ring_bits)
        extreme = np.array([bound, bound, bound - 1, 0, 1], dtype=np.int64) * sign
        inputs = {member: {0: SegmentInput(values=extreme, binding=MODEL)} for member in session.members}

        result = self.finished(session, inputs)

        assert result.sums[0].tolist() == [sign * count * value for value in (bound, bound, bound - 1, 0, 1)]

    def test_sums_are_signed_64_bit_integers(self) -> None:
        """A result holds int64 vectors of the segments' lengths."""
        session = make_session(4, segment(0, 3, names(4)), segment(1, 1, names(2)))

        result = self.finished(session, make_inputs(session))

        assert {index: (values.dtype, values.shape) for index, values in result.sums.items()} == {
            0: (np.dtype(np.int64), (3,)),
            1: (np.dtype(np.int64), (1,)),
        }

    def test_a_member_of_no_segment_takes_part(self) -> None:
        """A client that holds no segment answers every stage and survives without changing a sum."""
        session = make_session(4, segment(0, 5, names(3)))
        inputs = make_inputs(session)

        result = self.finished(session, inputs)

        assert inputs[LAST] == {}
        assert result.survivors == names(4)
        assert result.sums[0].tolist() == plain_sum(inputs, session.segments[0], names(3))

    def test_contributing_leaves_the_inputs_alone(self) -> None:
        """The caller's vectors are the same after the session as before."""
        session = make_session()
        inputs, expected = make_inputs(session), make_inputs(session)

        self.finished(session, inputs)

        for member in session.members:
            assert inputs[member][0].values.tolist() == expected[member][0].values.tolist()

    # Drop-outs, quorums and the threshold.

    @PROPERTY
    @given(data=st.data(), session=sessions(), seed=st.integers(0, 2**32 - 1))
    def test_drop_outs_leave_the_exact_sum_over_survivors(
        self, data: st.DataObject, session: Session, seed: int
    ) -> None:
        """Whoever falls silent and whenever, the sum is the survivors' or the session ends by name."""
        session = self.fitted(session)
        silent = data.draw(silences(session, self.secure_sum.stages))
        inputs = make_inputs(session, seed=seed)
        outcome = foretell(
            session,
            inputs,
            stages=self.secure_sum.stages,
            input_stage=self.secure_sum.upload_stage,
            silent_from=silent,
            quorum=self.quorum,
        )

        if outcome is None:
            with pytest.raises(BelowThresholdError):
                self.finished(session, inputs, silent)
        else:
            result = self.finished(session, inputs, silent)

            assert result.survivors == outcome.survivors
            assert {index: values.tolist() for index, values in result.sums.items()} == outcome.sums
            assert set(result.refused) == {s.index for s in session.segments} - set(outcome.open_segments)

    def test_an_upload_counts_and_later_silence_does_not_matter(self, stage: str) -> None:
        """A client that falls silent is in the sum exactly if it has sent its input before."""
        session = make_session()
        inputs = make_inputs(session)
        stages = self.secure_sum.stages
        uploaded = stages.index(stage) > stages.index(self.secure_sum.upload_stage)
        survivors = names(4) if uploaded else (FIRST, THIRD, LAST)

        result = self.finished(session, inputs, {SECOND: stage})

        assert result.survivors == survivors
        assert result.sums[0].tolist() == plain_sum(inputs, session.segments[0], survivors)

    def test_only_those_still_in_are_asked(self, stage: str) -> None:
        """A client that missed a stage gets no request of the next ones."""
        play = self.started()
        play.play_before(stage)
        play.play(stage, [SECOND])

        for later in self.secure_sum.stages[self.secure_sum.stages.index(stage) + 1 :]:
            assert set(play.server.requests()) == {FIRST, THIRD, LAST}

            play.play(later)

        assert play.sums()[0]

    def test_requests_can_be_read_twice(self, stage: str) -> None:
        """The server's requests of a stage are the same bytes each time."""
        play = self.started()
        play.play_before(stage)

        first, again = dict(play.server.requests()), dict(play.server.requests())

        assert first == again
        assert set(first) == set(names(4))

    def test_a_segment_below_its_quorum_stays_closed(self) -> None:
        """A drop-out closes the segment it makes too thin; the others open exactly."""
        session = make_session(
            4, segment(0, 5, names(4), 3), segment(1, 4, names(3), 3), segment(2, 3, (FIRST, SECOND, LAST), 2)
        )
        inputs = make_inputs(session)

        result = self.finished(session, inputs, {SECOND: self.secure_sum.input_stage})

        survivors = (FIRST, THIRD, LAST)
        assert result.survivors == survivors
        assert {index: values.tolist() for index, values in result.sums.items()} == {
            index: plain_sum(inputs, session.segments[index], survivors) for index in (0, 2)
        }
        assert set(result.refused) == {1}
        assert result.refused[1]

    def test_padding_does_not_count_towards_a_quorum(self) -> None:
        """A segment whose surviving uploads are all but padding stays closed; one more holder opens it exactly."""
        session = make_session(
            4,
            segment(0, 5, names(4), 2, holders=(FIRST, SECOND)),
            segment(1, 5, names(4), 2, holders=(FIRST, THIRD, LAST)),
        )
        inputs = make_inputs(session)
        for part in session.segments:
            for member in set(part.members) - set(part.holders):
                inputs[member][part.index] = SegmentInput(values=np.zeros(5, dtype=np.int64), binding=MODEL)

        thin = self.finished(session, inputs, {SECOND: self.secure_sum.input_stage})
        whole = self.finished(session, inputs)

        holders = {part.index: part.holders for part in session.segments}
        assert set(thin.refused) == {0}
        assert thin.sums[1].tolist() == plain_sum(inputs, session.segments[1], holders[1])
        assert {index: values.tolist() for index, values in whole.sums.items()} == {
            index: plain_sum(inputs, session.segments[index], holders[index]) for index in (0, 1)
        }

    def test_below_the_threshold_the_session_ends(self, stage: str) -> None:
        """Too few answers at any stage raise BelowThresholdError, and nothing can be opened."""
        play = self.started()
        play.play_before(stage)
        play.deliver(play.answers(stage, [FIRST, SECOND]))

        with pytest.raises(BelowThresholdError):
            play.server.close_stage()

        with pytest.raises(StageError):
            play.server.result(same_bindings(play.session))

    def test_a_stage_nobody_answers_ends_the_session(self, stage: str) -> None:
        """Silence of everyone is below every threshold."""
        play = self.started()
        play.play_before(stage)

        with pytest.raises(BelowThresholdError):
            play.server.close_stage()

    # Replies that the server refuses.

    def test_a_late_reply_is_refused(self, stage: str) -> None:
        """A reply that comes after its stage has closed raises StageError and changes no sum."""
        play = self.started()
        play.play_before(stage)
        late = play.answers(stage)
        play.deliver({member: late[member] for member in (FIRST, THIRD, LAST)})
        play.server.close_stage()
        survivors = names(4) if self._after_upload(stage) else (FIRST, THIRD, LAST)

        with pytest.raises(StageError):
            play.server.receive(SECOND, late[SECOND])
        play.play_after(stage)

        assert play.sums() == {0: plain_sum(play.inputs, play.session.segments[0], survivors)}

    def _after_upload(self, stage: str) -> bool:
        stages = self.secure_sum.stages
        return stages.index(stage) > stages.index(self.secure_sum.upload_stage)

    def test_a_duplicate_reply_is_refused(self, stage: str) -> None:
        """A second reply of one client to one stage raises StageError and changes no sum."""
        play = self.started()
        play.play_before(stage)
        replies = play.answers(stage)
        play.deliver(replies)

        for member in play.session.members:
            with pytest.raises(StageError):
                play.server.receive(member, replies[member])
        play.server.close_stage()
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    def test_the_reply_of_an_earlier_stage_is_refused(self, stage: str) -> None:
        """A replayed reply of the stage before raises a ProtocolError and does not count as an answer."""
        play = self.started()
        number = self.secure_sum.stages.index(stage)
        replayed = {}
        for earlier in self.secure_sum.stages[:number]:
            replayed = play.answers(earlier)
            play.deliver(replayed)
            play.server.close_stage()

        for member, reply in replayed.items():
            with pytest.raises(ProtocolError):
                play.server.receive(member, reply)
        play.play(stage)
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    def test_a_reply_of_another_session_is_refused(self, stage: str) -> None:
        """A reply made for another attempt at the round raises ContextError; the right one still counts."""
        play, twin = self.started(), self.started(make_session(attempt=2))
        play.play_before(stage)
        twin.play_before(stage)
        play.server.requests()  # both servers have asked: the replies come when they are waited for
        foreign = twin.answers(stage)
        play.server.requests()  # a server may fix who is in when it asks

        for member, reply in foreign.items():
            with pytest.raises(ContextError):
                play.server.receive(member, reply)
        play.play(stage)
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    def test_a_reply_under_another_name_is_refused(self, stage: str) -> None:
        """A reply that another client sent raises RosterError; the right one still counts."""
        play = self.started()
        play.play_before(stage)
        replies = play.answers(stage)

        for member, other in zip(play.session.members, play.session.members[1:], strict=False):
            with pytest.raises(RosterError):
                play.server.receive(member, replies[other])
        play.deliver(replies)
        play.server.close_stage()
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    def test_a_malformed_reply_is_refused(self, stage: str) -> None:
        """Every truncation, an extension and every bit flip of the header raise WireError and change no sum.

        Where a reply ends in its signature, one truncation is a whole message without it, and refused as that.
        """
        play = self.started()
        play.play_before(stage)
        replies = play.answers(stage)
        reply = replies[FIRST]
        bad = [reply + b"\x00", reply * 3]  # a reply may be as long as a signature, which is why not twice
        bad += [
            bytes(byte ^ (1 << bit % 8) * (place == bit // 8) for place, byte in enumerate(reply))
            for bit in range(HEADER_BITS)
        ]

        for size in range(len(reply)):
            with pytest.raises(self.refusal_of_a_cut(stage, len(reply) - size)):
                play.server.receive(FIRST, reply[:size])
        for message in bad:
            with pytest.raises(WireError):
                play.server.receive(FIRST, message)
        play.deliver(replies)
        play.server.close_stage()
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    def test_a_refused_reply_leaves_its_sender_silent(self, stage: str) -> None:
        """A client of which only a malformed reply came counts as one that fell silent at this stage."""
        play = self.started()
        play.play_before(stage)
        replies = play.answers(stage)
        survivors = names(4) if self._after_upload(stage) else (FIRST, THIRD, LAST)

        with pytest.raises(WireError):
            play.server.receive(SECOND, replies.pop(SECOND)[:-1])
        play.deliver(replies)
        play.server.close_stage()
        play.play_after(stage)

        assert play.sums() == {0: plain_sum(play.inputs, play.session.segments[0], survivors)}

    def test_a_stranger_is_refused(self, stage: str) -> None:
        """A reply under a name outside the roster raises RosterError."""
        play = self.started()
        play.play_before(stage)
        replies = play.answers(stage)

        for reply in replies.values():
            with pytest.raises(RosterError):
                play.server.receive("stranger", reply)
        play.deliver(replies)
        play.server.close_stage()
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    def test_a_stranger_cannot_be_a_client(self) -> None:
        """There is no client side for a name outside the roster."""
        session = make_session()

        with pytest.raises(RosterError):
            self.secure_sum.client(session, "stranger")

    def test_nobody_is_screened_out_where_nothing_is_screened(self) -> None:
        """Every input counts, and the server says so under the same name in every secure sum."""
        play = self.started()
        for stage in self.secure_sum.stages:
            play.deliver(play.answers(stage))
            play.server.close_stage()

        assert play.server.screened_out == {}

    # Extra secrets.

    def test_extra_secrets_are_shared_or_refused_by_name(self) -> None:
        """Whoever gives some relies on the rule that gives them out: a secure sum that shares none says so, and what to do."""
        session = make_session(4, segment(0, 20, names(4), extra_secrets=1))
        given = {0: (Secret(bytes(range(32))),)}

        if self.secure_sum.shares_secrets:
            assert self.secure_sum.client(session, FIRST, extra_secrets=given)
            return
        with pytest.raises(InputError, match=rf"^secure sum {self.secure_sum.name} shares no extra secrets"):
            self.secure_sum.client(make_session(), FIRST, extra_secrets=given)

    def test_no_extra_secrets_are_not_refused(self) -> None:
        """A session without room for any: none given, or an empty mapping of them."""
        assert self.secure_sum.client(make_session(), FIRST, extra_secrets={})

    # Calls out of order.

    def test_no_result_before_the_last_stage_has_closed(self, stage: str) -> None:
        """Asking for the sums too early raises StageError, before and after the replies, and does no harm."""
        play = self.started()
        play.play_before(stage)
        bindings = same_bindings(play.session)

        with pytest.raises(StageError):
            play.server.result(bindings)
        play.deliver(play.answers(stage))
        with pytest.raises(StageError):
            play.server.result(bindings)
        play.server.close_stage()
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    def test_nothing_moves_after_the_last_stage(self) -> None:
        """Once all stages are closed, requests, receive and close_stage raise StageError and the sums stay."""
        play = self.started()
        replies = {}
        for stage in self.secure_sum.stages:
            replies = play.answers(stage)
            play.deliver(replies)
            play.server.close_stage()

        with pytest.raises(StageError):
            play.server.requests()
        for member, reply in replies.items():
            with pytest.raises(StageError):
                play.server.receive(member, reply)
        with pytest.raises(StageError):
            play.server.close_stage()

        assert play.sums() == play.honest_sums()

    def _answer_by_the_wrong_method(self, play: Play, stage: str, member: str, request: bytes) -> bytes:
        if stage == self.secure_sum.input_stage:
            return play.clients[member].reply(request)
        return play.clients[member].contribute(request, play.inputs[member])

    def test_a_client_is_called_by_the_method_of_its_stage(self, stage: str) -> None:
        """`reply` at the input stage, or `contribute` at another, raises StageError and changes nothing."""
        play = self.started()
        play.play_before(stage)

        for member, request in play.server.requests().items():
            with pytest.raises(StageError):
                self._answer_by_the_wrong_method(play, stage, member, request)
        play.play(stage)
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    def test_an_answered_request_belongs_to_its_method(self, stage: str) -> None:
        """The request just answered by one method raises StageError at the other: neither stage has that answer."""
        play = self.started()
        play.play_before(stage)
        request = play.server.requests()[FIRST]
        play.answer(stage, FIRST, request)

        with pytest.raises(StageError):
            self._answer_by_the_wrong_method(play, stage, FIRST, request)

    def test_a_client_that_is_done_gives_no_other_answer(self) -> None:
        """After its last stage a client raises StageError on every new request."""
        play = self.started()
        for stage in self.secure_sum.stages:
            play.play(stage)
        request = b"another request"

        for member, client in play.clients.items():
            with pytest.raises(StageError):
                client.reply(request)
            with pytest.raises(StageError):
                client.contribute(request, play.inputs[member])

        assert play.sums() == play.honest_sums()

    def test_a_client_that_has_ended_answers_nothing(self, stage: str) -> None:
        """After `end` no request is answered, the one just answered included; the others finish without it."""
        play = self.started()
        play.play_before(stage)
        requests, replies = dict(play.server.requests()), play.answers(stage)
        ended = play.clients[SECOND]

        ended.end()

        for request in (requests[SECOND], b"", b"another request"):
            with pytest.raises(StageError):
                ended.reply(request)
            with pytest.raises(StageError):
                ended.contribute(request, play.inputs[SECOND])
        play.deliver(replies)
        play.server.close_stage()
        play.play_after(stage, [SECOND])
        survivors = (
            names(4)
            if self._after_upload(stage) or stage == self.secure_sum.upload_stage
            else (FIRST, THIRD, LAST)
        )
        assert play.sums() == {0: plain_sum(play.inputs, play.session.segments[0], survivors)}

    def test_a_client_can_end_at_any_time_and_twice(self, stage: str) -> None:
        """Ending before a stage, and again, makes its client silent from that stage on and harms nobody."""
        play = self.started()
        play.play_before(stage)
        request = play.server.requests()[SECOND]

        for _ in range(2):
            play.clients[SECOND].end()

        with pytest.raises(StageError):
            play.answer(stage, SECOND, request)
        play.play(stage, [SECOND])
        play.play_after(stage, [SECOND])
        survivors = names(4) if self._after_upload(stage) else (FIRST, THIRD, LAST)
        assert play.sums() == {0: plain_sum(play.inputs, play.session.segments[0], survivors)}

    def test_a_foreign_first_request_is_refused(self) -> None:
        """A client that has not begun refuses a first request with something else in it than belongs there."""
        play = self.started()
        first = self.secure_sum.stages[0]

        with pytest.raises(self.refusal_of_a_foreign_first_request):
            play.answer(first, FIRST, b"\x00")
        for stage in self.secure_sum.stages:
            play.play(stage)

        assert play.sums() == play.honest_sums()

    def test_the_same_request_gets_the_same_answer(self, stage: str) -> None:
        """A repeated identical request is answered with identical bytes."""
        play = self.started()
        play.play_before(stage)
        requests = dict(play.server.requests())
        replies = play.answers(stage)

        again = {member: play.answer(stage, member, request) for member, request in requests.items()}

        assert again == replies

    def test_other_inputs_do_not_change_an_answer_already_given(self) -> None:
        """A client that has uploaded repeats that upload, whatever inputs it is given afterwards."""
        play = self.started()
        stage = self.secure_sum.input_stage
        play.play_before(stage)
        requests = dict(play.server.requests())
        replies = play.answers(stage)
        others = make_inputs(play.session, seed=1)

        again = {
            member: play.clients[member].contribute(request, others[member])
            for member, request in requests.items()
        }

        assert again == replies

    # Inputs and bindings.

    @pytest.mark.parametrize("fault", BAD_INPUTS)
    def test_bad_inputs_are_refused(self, fault: str) -> None:
        """Inputs that do not fit the session raise InputError at the client, which can then give the right ones."""
        play = self.started()
        stage = self.secure_sum.input_stage
        play.play_before(stage)
        request = play.server.requests()[SECOND]

        with pytest.raises(InputError):
            play.clients[SECOND].contribute(request, BAD_INPUTS[fault])
        play.play(stage)
        play.play_after(stage)

        assert play.sums() == play.honest_sums()

    @pytest.mark.parametrize("beyond", [1, 7, 2**20, 2**40, -1, -(2**20), -(2**40)])
    def test_a_value_that_wraps_is_never_refused(self, beyond: int) -> None:
        """A sum that stays in its range is exact, and any other one stays closed; the control is the same value with a bound."""
        play = self.started()
        bound = play.session.input_bound
        play.play_before(self.secure_sum.input_stage)
        values = np.array([0, 0, 0, 0, beyond + (bound if beyond > 0 else -bound)], dtype=np.int64)
        request = play.server.requests()[SECOND]
        with pytest.raises(InputError, match="a value leaves"):
            play.clients[SECOND].contribute(request, replaced(values))

        play.inputs[SECOND] = {0: SegmentInput(values=values, binding=MODEL, wraps=True)}
        play.play(self.secure_sum.input_stage)
        play.play_after(self.secure_sum.input_stage)

        result = play.server.result(same_bindings(play.session))
        reached = play.honest_sums()[0]
        if max(map(abs, reached)) <= 4 * bound:
            assert result.sums[0].tolist() == reached
        elif 0 in result.sums:
            assert np.abs(result.sums[0]).max() <= 4 * bound
        else:
            assert list(result.refused) == [0]
        assert SECOND in result.survivors

    @pytest.mark.parametrize("bindings", [{}, {0: None}, {0: b""}, {0: MODEL[:-1]}, {1: MODEL}])
    def test_the_server_needs_its_own_binding(self, bindings: dict[int, bytes]) -> None:
        """Without 32 bytes of binding for an open segment the server raises InputError."""
        play = self.started()
        for stage in self.secure_sum.stages:
            play.play(stage)

        with pytest.raises(InputError):
            play.server.result(bindings)

    def test_a_missing_binding_can_be_given_later(self) -> None:
        """Asking for the sums without every binding raises InputError and loses nothing."""
        session = make_session(4, segment(0, 5, names(4)), segment(1, 5, (FIRST, SECOND), 2))
        play = self.started(session)
        for stage in self.secure_sum.stages:
            play.play(stage)

        with pytest.raises(InputError, match="segment 1"):
            play.server.result({0: MODEL})

        assert play.sums() == play.honest_sums()

    def test_the_sums_are_opened_once(self) -> None:
        """A second result raises StageError."""
        play = self.started()
        for stage in self.secure_sum.stages:
            play.play(stage)
        play.sums()

        with pytest.raises(StageError):
            play.sums()

    def test_a_session_that_ended_below_its_threshold_is_over(self) -> None:
        """After BelowThresholdError no reply is taken and no stage closes any more."""
        play = self.started()
        replies = play.answers(self.secure_sum.stages[0])

        with pytest.raises(BelowThresholdError):
            play.server.close_stage()

        with pytest.raises(StageError):
            play.server.receive(FIRST, replies[FIRST])
        with pytest.raises(StageError):
            play.server.close_stage()

    def _bindings_session(self, *, full: bool) -> Session:
        """Two segments for all, under a small bound or the largest that the ring admits."""
        # So long that noise is all but never inside the honest range, which is half of the ring at full capacity.
        parts = (segment(0, 64, names(4)), segment(1, 8, names(4)))
        bound = largest_sum(self.ring_bits) // 4 if full else 1000
        return make_session(4, *parts, input_bound=bound, ring_bits=self.ring_bits)

    @pytest.mark.parametrize("full", [False, True], ids=["small bound", "full capacity"])
    @pytest.mark.parametrize("odd", names(4))
    def test_clients_bound_to_different_models_agree_on_no_sum(self, odd: str, full: bool) -> None:  # noqa: FBT001
        """One client with another binding never yields the plain sum of that segment; other segments open exactly."""
        session = self._bindings_session(full=full)
        inputs = make_inputs(session)
        inputs[odd] = make_inputs(session, bindings=self.odd_bindings)[odd]
        sums = {part.index: plain_sum(inputs, part, names(4)) for part in session.segments}

        result = self.finished(session, inputs)

        self.check_other_segments(result, sums)
        self.check_mixed_bindings(session, result, sums)

    @pytest.mark.parametrize("full", [False, True], ids=["small bound", "full capacity"])
    def test_a_server_bound_to_another_model_learns_no_sum(self, full: bool) -> None:  # noqa: FBT001
        """A server whose binding differs from that of all clients does not get the plain sum."""
        session = self._bindings_session(full=full)
        inputs = make_inputs(session, bindings=self.odd_bindings)
        sums = {part.index: plain_sum(inputs, part, names(4)) for part in session.segments}

        result = self.finished(session, inputs)

        self.check_other_segments(result, sums)
        self.check_foreign_server_binding(session, result, sums)

    @pytest.mark.parametrize(
        ("excess", "silent", "opens"),
        [(1, (), False), (-1, (), False), (0, (), True), (0, (SECOND,), False)],
        ids=["one above", "one below", "at the limit", "at the limit of more survivors"],
    )
    def test_a_sum_that_the_survivors_cannot_reach_stays_closed(
        self,
        excess: int,
        silent: tuple[str, ...],
        opens: bool,  # noqa: FBT001
    ) -> None:
        """A segment whose sum exceeds the survivors' number times the bound is refused; the others open exactly."""
        session = make_session(4, segment(0, 5, names(4)), segment(1, 5, names(4)))
        play = self.started(session, make_inputs(session))
        extreme = -1 if excess < 0 else 1
        self._plant(play, LAST, extreme * (4 * session.input_bound) + excess)
        play.play_before(self.secure_sum.input_stage)
        play.play(self.secure_sum.input_stage, silent)
        play.play_after(self.secure_sum.input_stage)

        result = play.server.result(same_bindings(session))

        survivors = [member for member in names(4) if member not in silent]
        assert result.sums[1].tolist() == plain_sum(play.inputs, session.segments[1], survivors)
        assert set(result.sums) == ({0, 1} if opens else {1})
        assert (0 in result.refused) == (not opens)

    def _plant(self, play: Play, cheater: str, value: int) -> None:
        """Make one client contribute a value beyond the bound to segment 0, to which all others give nothing."""
        # The cheater believes in a larger bound; in all else its session is the same, its context included.
        lax = replace(play.session, input_bound=largest_sum(self.ring_bits) // len(play.session.members))
        lax.__dict__["context"] = play.session.context
        play.clients[cheater] = self.secure_sum.client(lax, cheater)
        for member in play.session.members:
            values = np.zeros(5, dtype=np.int64)
            values[2] = value if member == cheater else 0
            play.inputs[member][0] = SegmentInput(values=values, binding=MODEL)
