"""The table at the end of a run: what each party learnt."""

from collections.abc import Sequence

from rbla_secure.config.choices import Rest, Upload
from rbla_secure.planning.disclosure import Learned, Opened
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.records import RoundRecord


def what_each_party_learned(plan: Plan, records: Sequence[RoundRecord]) -> list[Learned]:
    """Return the table of a run, from the sums that actually opened."""
    counts = [count for record in records for count in _opened(record)]
    opened = Opened(counts=counts, kind=plan.segmentation.sums)
    return [*plan.mode.learned(plan, opened), _client(plan), _reader(plan)]


def _opened(record: RoundRecord) -> list[int]:
    """Return how many clients each sum covers that the server saw."""
    if not record.groups:
        return list(record.holders.values())
    # A group that opened has a verdict, and with it a flag.
    return [len(set(record.groups[name]).intersection(record.survivors)) for name in record.flags]


def _client(plan: Plan) -> Learned:
    whole = plan.config.lora.rest is Rest.FOLDED or plan.config.upload is Upload.PADDED
    model = (
        f"the whole global adapter (rank {plan.max_rank})" if whole else "the global adapter at its own rank"
    )
    return Learned(
        "each client",
        f"{model}; {'the roster' if plan.promises.whoever_is_there else 'who took part'}",
        "every other client's update, weight and examples",
    )


def _reader_hidden(plan: Plan) -> str:
    if plan.mechanism is None:
        return "everything of a single client; no noise was added, so the adapter itself may tell of its training data"
    if plan.config.privacy.simulation:
        return "nothing: the noise follows from the seed, which the configuration tells"
    if plan.promises.whoever_is_there:
        return "nothing of who answered, which metrics and events name: the epsilon of privacy.json is about the adapters alone"
    return "what one client contributed, up to the epsilon of privacy.json"


def _reader(plan: Plan) -> Learned:
    return Learned(
        "reader of the run folder",
        "the base, the global adapter after every round, metrics, events",
        _reader_hidden(plan),
    )
