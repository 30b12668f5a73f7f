"""What each party learnt in a run: the table a run ends with."""

from collections.abc import Sequence
from typing import NamedTuple

from protocols.homomorphic.screening.screening import Release
from protocols.profiles import Adversary
from rbla_secure.config.choices import Rest, Upload
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.records import RoundRecord


class Learned(NamedTuple):
    """One row: a party, what it saw, what stayed hidden from it."""

    party: str
    saw: str
    hidden: str


def what_each_party_learned(plan: Plan, records: Sequence[RoundRecord]) -> list[Learned]:
    """The table of a run, from what actually opened."""
    opened = [count for record in records for count in _opened(plan, record)]
    smallest = min(opened, default=0)
    kind = "sums of groups" if plan.grouped else "band sums"
    sums = (
        f"{len(opened)} {kind}, each over {smallest} clients or more"
        if opened
        else "no sum: every band stayed closed"
    )
    public = "ranks, who took part, who dropped out"
    if plan.mode.reads_uploads:
        return [
            Learned("server", f"every update of every client; {public}", "the clients' examples"),
            _client(plan),
            _reader(plan),
        ]
    if plan.mode.needs_services:
        return [
            Learned(
                "server",
                f"{sums}; {public}; ciphertexts{_screened(plan)}",
                "every single update, weight and example",
            ),
            *_services(plan, sums),
            _client(plan),
            _reader(plan),
        ]
    return [
        Learned(
            "server",
            f"{sums}{_removed(plan) if opened else ''}; {public}",
            "every single update, weight and example",
        ),
        _collusion(plan, smallest),
        _client(plan),
        _reader(plan),
    ]


def _opened(plan: Plan, record: RoundRecord) -> list[int]:
    """Of every sum that the server was shown: how many clients it covers."""
    if not plan.grouped:
        return list(record.holders.values())
    # A group that opened has a verdict, and with it a flag.
    return [len(set(record.groups[name]).intersection(record.survivors)) for name in record.flags]


def _least(plan: Plan) -> int:
    """The fewest clients over which honest parties open a sum."""
    return plan.config.min_holders if plan.grouped else plan.promises.row_quorum


def _removed(plan: Plan) -> str:
    """What the server is told of the clients' noise."""
    if plan.mechanism is None or not any(shares.recovered for shares in plan.mechanism.bands):
        return ""
    return ", and the noise that it took off them because nobody's drop-out needed it"


def _screened(plan: Plan) -> str:
    """What the server is told of single encrypted updates."""
    if plan.screening is None:
        return ""
    if plan.screening.release is Release.VERDICTS:
        return "; whether each update passed the screening"
    return "; norm and cosine of every update, to three decimals"


def _services(plan: Plan, sums: str) -> list[Learned]:
    """The parties of the homomorphic mode, and what two of them know together."""
    everything = "every single update, weight and example"
    decryptor = Learned("decryptor", f"{sums}; who took part; no ciphertext of a client", everything)
    if plan.screening is not None:
        numbers = "norm of every update and its cosine to the last step"
        decryptor = decryptor._replace(saw=f"{decryptor.saw} but those of its {numbers}")
    together = Learned(
        "server and decryptor together", "every update of every client", "the clients' examples"
    )
    if not plan.config.homomorphic.verifier:
        parts = len(plan.bands_that_open)
        lying = Learned(
            "server that lies",
            "in every band and round the update of a client of its choice, decrypted as if it were the sum: up to "
            f"{parts} different {'clients' if parts > 1 else 'client'} by one request",
            "the others' updates of that round",
        )
        return [decryptor, lying, together]
    verifier = Learned("verifier", "ciphertexts; who took part", f"every sum; {everything}")
    lying = Learned(
        "server that lies", f"the same sums, each over {_least(plan)} holders or more", everything
    )
    shown = Learned(
        "server that lies, with clients that it shows all ciphertexts",
        f"the same sums less their own parts: of {_least(plan)} holders, all but one of whom tell it theirs, the last one's",
        "more than those differences: ciphertexts are sent once all of them are committed to",
    )
    return [decryptor, verifier, lying, *_directed(plan), shown, together]


def _directed(plan: Plan) -> list[Learned]:
    """What is left of setting the direction of the screening by what one puts into a sum."""
    if plan.screening is None or plan.screening.release is Release.VERDICTS:
        return []
    return [
        Learned(
            "server, with one client that sends values beyond its bound",
            "one coordinate of every update of the next round, roughly; with more than half of the cohort, to a thousandth",
            "every other coordinate",
        )
    ]


def _collusion(plan: Plan, smallest: int) -> Learned:
    """What the server knows if so many clients tell it everything; one more could open single updates.

    A server that lies may have chosen whom a sum is over, as long as they are enough for the band's quorum.
    """
    promises, profile = plan.promises, plan.promises.profile
    if profile.adversary is Adversary.MALICIOUS:
        colluders = profile.corrupt(promises.members)
        party = f"malicious server with up to {colluders} clients"
        what = "one sum a group" if plan.grouped else "one sum a band"
        smallest = min(smallest, _least(plan))
    else:
        colluders = promises.threshold - 1
        party, what = f"server with up to {colluders} clients", "the same sums"
    rest, part = smallest - colluders, "group" if plan.grouped else "band"
    saw = f"{what} less their own parts: of the thinnest {part} the sum of {rest} other clients"
    if rest <= 1:
        saw = f"{what} less their own parts: the update of a client that is alone beside them in a {part}"
    if not smallest:
        saw = "no sum: every band stayed closed"
    return Learned(party, saw, "more than those differences")


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
