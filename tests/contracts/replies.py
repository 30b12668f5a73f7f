"""What every secure sum refuses of replies, requests and inputs: plain, masking, homomorphic."""

from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    InputError,
    ProtocolError,
    RosterError,
    StageError,
    WireError,
)
from protocols.interface import SegmentInput
from protocols.primitives.secret import Secret
from protocols.session import Session
from tests.contracts.case import BAD_INPUTS, FIRST, HEADER_BITS, LAST, SECOND, THIRD, SecureSumCase, replaced
from tests.contracts.sessions import (
    MODEL,
    Play,
    largest_sum,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
)


class RepliesContract(SecureSumCase):
    """What every secure sum refuses of replies, requests and inputs, and what it never says twice."""

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
