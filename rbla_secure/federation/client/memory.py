"""A participant's memory: which rounds have its input, and which models it accepted. Held by the client.

Without a folder it lasts as long as the process. With a state folder (`state_folder.py`) it is durable: a model before
anybody trains on it, a round before its input leaves. So a client that is killed at any moment and started again gives
no round a second input, and measures the next model from the last one that it accepted.

**One memory per seed.** What a client uploads follows from the model that it was sent, its examples, its configuration, and
two streams of the plan's seed: the order of the examples, ``derive_seed(seed, "training", round, client)``, and rounding,
``derive_key(seed, "rounding", round, client)`` (in turns with the band beside the client). (Noise against the server comes from the operating system.) No key of the
configuration is in either, so that plans which differ only in what changes no training (`rounds`, `stage-seconds`) train
to the same bits: two sums of one round under both, over different survivors, would show an update. Hence a seed that has given a
round any input serves one plan alone, to the byte, whatever the run.

**What remains under another seed.** Streams and first adapter are others, but a later round may begin with the same
model. Training that depends little on the order of the examples, such as steps over all of them at once, then gives
nearly the same values, which rounding changes by at most one unit of the grid. So do two rounds of one plan that begin
with the same model: repeated rounds reveal this, which nothing but noise limits.
"""

from functools import cached_property
from pathlib import Path
from typing import Self, final

from protocols.session import ClientId
from rbla_secure.errors import RefusalError
from rbla_secure.federation.broadcast import Broadcast
from rbla_secure.federation.client.clip_check import check_clip_norm
from rbla_secure.federation.client.plausibility import Sent, check_plausible
from rbla_secure.federation.client.state_folder import Remembered, StateFolder
from rbla_secure.federation.step_bound import AverageLimits, average_limits
from rbla_secure.planning.plan import Plan


@final
class Memory:
    """One participant's memory of one plan.

    Args:
        plan: The participant's own plan.
        state: The folder that makes it durable; None keeps it in the process alone. It is closed with the memory.

    Raises:
        RefusalError: The content of the folder is damaged, another client's, or says that this plan's seed has given a
            round an input under another plan.

    Attributes:
        given: The highest round that has this participant's input; 0 if none has.
    """

    def __init__(self, plan: Plan, state: StateFolder | None = None) -> None:
        self._plan = plan
        self._state = state
        found = state.read(plan) if state is not None else None
        self.given = found.given if found is not None else 0
        self._last = found.last if found is not None else None

    @classmethod
    def in_folder(cls, plan: Plan, folder: Path, *, client: ClientId) -> Self:
        """Open the memory of a client in its state folder, which is locked until :meth:`close`.

        Raises:
            RefusalError: The constructor refuses it, or the folder is in use or cannot be used.
        """
        state = StateFolder(folder, client=client)
        try:
            return cls(plan, state)
        except BaseException:
            state.close()
            raise

    def close(self) -> None:
        """Release the state folder: nothing can be accepted or given any more. Without a folder nothing changes."""
        if self._state is not None:
            self._state.close()

    def check_own(self, client: ClientId) -> None:
        """Refuse a state folder of another client.

        Raises:
            RefusalError: The state folder belongs to another client.
        """
        if self._state is not None and self._state.client != client:
            raise RefusalError(
                f"the state folder is that of {self._state.client}, not of {client}: give each client a folder of its own"
            )

    def check_not_given(self, round_number: int) -> None:
        """Refuse a round at or below the highest one that has this participant's input.

        Two sums of one round over different survivors would show the difference; and a lower round can only come after a
        higher one where somebody reorders them, so that the memory of a single round would be overwritten by an older one.

        Raises:
            RefusalError: The round is not above the highest one given.
        """
        if round_number == self.given:
            raise RefusalError(
                f"round {round_number} has had this participant's input: another one could show the difference of two sums"
            )
        if round_number < self.given:
            raise RefusalError(
                f"round {round_number} is over for this participant, whose input round {self.given} has had: rounds go forward"
            )

    def check_clip_norm(self, round_number: int, clip_norm: float) -> None:
        """Refuse a clip norm that honest counts cannot have led to since the last one that was accepted.

        Raises:
            RefusalError: The clip norm is out of range.
        """
        check_clip_norm(self._plan, clip_norm, round_number=round_number, last=self._last)

    def accept(self, broadcast: Broadcast, round_number: int, clip_norm: float | None = None) -> None:
        """Check a model and a clip norm against those before, and remember them; called before anything is trained.

        Args:
            broadcast: The model.
            round_number: Number of the round that begins with it.
            clip_norm: The clip norm of the round, an L2 norm; by default the plan's first.

        Raises:
            RefusalError: Honest rounds cannot have led to it; or it cannot be recorded, and is then not accepted.
        """
        norm = self._plan.first_clip_norm if clip_norm is None else clip_norm
        check_plausible(
            self._plan, broadcast, round_number=round_number, last=self._last, limits=self._limits
        )
        self.check_clip_norm(round_number, norm)
        if self._last is None or self._last.round != round_number:
            self._keep(self.given, Sent(round=round_number, adapter=broadcast.adapter, clip_norm=norm))

    def give(self, round_number: int) -> None:
        """Record that a round has this participant's input; called before the input leaves.

        Raises:
            RefusalError: It cannot be written: the input must not leave.
            ValueError: The round's model was not accepted before.
        """
        if self._last is None or self._last.round != round_number:
            raise ValueError(f"round {round_number}: its model must be accepted before its input is given")
        self._keep(round_number, self._last)

    @cached_property
    def _limits(self) -> AverageLimits:
        """Return the limits of averages, which follow from the plan and are the same in every round."""
        return average_limits(self._plan)

    def _keep(self, given: int, last: Sent) -> None:
        if self._state is not None:
            self._state.write(self._plan, Remembered(given=given, last=last))
        # Only what is durable counts: after a failure nothing was accepted and nothing has left.
        self.given, self._last = given, last
