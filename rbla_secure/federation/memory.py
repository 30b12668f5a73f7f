"""What a participant must not forget: which round has its input, and which adapters it was sent. Held by the client.

In memory it lives as long as the process. With a state folder it is durable: written before an input leaves, so that a
client that is killed and started again gives no round a second input. The file is bound to the plan, not to the run:
training and rounding follow from the plan, so a second run of one plan would show the difference of two sums as well as a
second attempt would.

    STATE/given-<first 16 hex digits of the plan's digest>.safetensors      the last adapter; the rounds as metadata

It is read once and not locked: one process at a time may use it. And it is the plan's to the byte: a plan of the same seed that
differs in what changes no training, its number of rounds say, is remembered apart and trains to the same bits.

Nothing in it is secret: the adapter is the server's, the rounds are public.
"""

from pathlib import Path
from typing import final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rbla_secure.durable import write_atomic
from rbla_secure.errors import AdapterError, RefusalError
from rbla_secure.federation.broadcast import Broadcast
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.plausibility import Sent, check_plausible
from rbla_secure.lora.adapter import Adapter

_FORMAT = "1"
_TENSOR = "rows"


@final
class Memory:
    """One participant's memory of one plan.

    Args:
        plan: The participant's own.
        folder: Where it is made durable; None keeps it in the process alone.

    Raises:
        RefusalError: What is in the folder cannot be read: without it the participant could give a round twice.

    Attributes:
        given: The highest round that has this participant's input; 0 if none has.
    """

    def __init__(self, plan: Plan, folder: Path | None = None) -> None:
        self._plan = plan
        self._path = folder / f"given-{plan.digest.hex()[:16]}.safetensors" if folder is not None else None
        self.given = 0
        self._last: Sent | None = None
        if self._path is not None and self._path.exists():
            self.given, self._last = _read(self._path, plan)

    def check_not_given(self, round_number: int) -> None:
        """Refuse a round at or below the highest one that has this participant's input.

        Two sums of one round over different survivors would show the difference; and a lower round can only come after a
        higher one where somebody reorders them, so that the memory of a single round would be overwritten by an older one.

        Raises:
            RefusalError: The round is such a one.
        """
        if round_number == self.given:
            raise RefusalError(
                f"round {round_number} has had this participant's input: another one could show the difference of two sums"
            )
        if round_number < self.given:
            raise RefusalError(
                f"round {round_number} is over for this participant, whose input round {self.given} has had: rounds go forward"
            )

    def accept(self, broadcast: Broadcast, round_number: int) -> None:
        """Check a model against the ones before it, and remember it.

        Raises:
            RefusalError: Honest rounds cannot have led to it.
        """
        check_plausible(self._plan, broadcast, round_number=round_number, last=self._last)
        self._last = Sent(round=round_number, adapter=broadcast.adapter)

    def give(self, round_number: int) -> None:
        """Write down that a round has this participant's input; called before the input leaves.

        Raises:
            OSError: It cannot be written: the input must not leave.
        """
        self.given = round_number
        if self._path is not None and self._last is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, _encode(self._plan, self.given, self._last), mode=0o600)


def _encode(plan: Plan, given: int, last: Sent) -> bytes:
    rows = {_TENSOR: np.ascontiguousarray(last.adapter.rows)}
    metadata = {"format": _FORMAT, "plan": plan.digest.hex(), "given": str(given), "sent": str(last.round)}
    return save(rows, metadata=metadata)


def _read(path: Path, plan: Plan) -> tuple[int, Sent]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("plan")) != (_FORMAT, plan.digest.hex()):
                raise RefusalError(f"{path} is another plan's, or of another version")
            adapter = Adapter(layout=plan.layout, rows=np.array(file.get_tensor(_TENSOR)))
            return int(metadata["given"]), Sent(round=int(metadata["sent"]), adapter=adapter)
    except (OSError, SafetensorError, AdapterError, KeyError, ValueError) as error:
        raise RefusalError(
            f"{path} is damaged ({type(error).__name__}): without it this participant could give a round its input twice; "
            "restore it from a backup, or take part under a plan with another seed"
        ) from None
