"""The tables ``tiers.NAME`` and ``lora``: who trains adapters of which rank, and which rows and factors."""

from typing import Annotated

from pydantic import Field

from rbla_secure.config.choices import Factors, Rest
from rbla_secure.config.fields import Count, CountOrZero, Positive, Table


class TierConfig(Table):
    """A device class: clients that train adapters of the same rank."""

    rank: Annotated[int, Field(ge=1, le=4096)] = Field(
        description="Rank of the adapters of this tier: the number of rank rows that its clients train and upload."
    )
    clients: Count = Field(description="Number of clients in this tier.")
    cohort: CountOrZero = Field(
        0,
        description="Clients of this tier that are drawn for each round. 0 draws all of them.",
    )

    @property
    def rounds_apart(self) -> int:
        """The least number of rounds from one participation of a client to its next, where clients take turns."""
        return self.clients // (self.cohort or self.clients)


class LoraConfig(Table):
    """The adapter: its scaling, the factors that are trained, and the rows above a client's rank."""

    scaling: Positive = Field(
        2.0,
        description="LoRA scaling, alpha / r: one constant for the whole federation, whatever the ranks.",
    )
    factors: Factors = Field(
        Factors.BOTH,
        description="Factors that are trained and sent. `lora-b` trains and sends `lora_B` alone, against one frozen `lora_A` that "
        "all clients share (FFA-LoRA): fewer values, and less noise under differential privacy.",
    )
    rest: Rest = Field(
        Rest.FOLDED,
        description="What becomes of the rows above a client's rank. `folded`: they are sent to the client, which folds them into the "
        "frozen weights that it trains on, so that all clients start a round from one function. `dropped`: the client "
        "starts without them, as RBLA was published.",
    )
