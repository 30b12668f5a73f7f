"""What a field of a ledger can hold: figures that are finite and count something, attempts from 1 on, clients by name in order.

A figure outside of this was written by nobody who keeps a ledger. One that is negative or not a number would take spent privacy
back, or turn every comparison with a budget false.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A part of a ledger: frozen, without further fields, without conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _in_order(clients: tuple[str, ...]) -> tuple[str, ...]:
    if not all(clients) or list(clients) != sorted(set(clients)):
        raise ValueError("clients must be named, in order and once each")
    return clients


# Pydantic's bounds are comparisons that must hold, so none of them takes a value that is not a number.
Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Delta = Annotated[float, Field(gt=0, lt=1)]
Number = Annotated[int, Field(ge=1)]
Clients = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_in_order)]
