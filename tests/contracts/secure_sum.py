"""What every secure sum must do: plain, masking, homomorphic.

A subclass whose name begins with `Test` sets `secure_sum` and says, in two hooks, how its implementation keeps
clients with different bindings from agreeing on a sum. Further hooks say where it asks for more than the sessions do:
another ring, a higher threshold, a higher quorum, another error for a reply that lost its signature.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import (
    BelowThresholdError,
    StageError,
)
from protocols.interface import SegmentInput
from protocols.session import Session
from tests.contracts.case import FIRST, LAST, SECOND, THIRD
from tests.contracts.replies import RepliesContract
from tests.contracts.sessions import (
    MODEL,
    PROPERTY,
    foretell,
    largest_sum,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
    sessions,
    silences,
)


class SecureSumContract(RepliesContract):
    """The conformance tests of one implementation."""

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
