"""Neighbouring rounds share their exchanges: fewer of them, and nothing else is different."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from protocols.session import ClientId
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.planning.cohort import sample_cohort
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.folder import Progress, RunFolder
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds
from rbla_secure.stopwatch import Stopwatch
from tests.support.federations import InMemory, WhenSaved, make_participants, make_plan
from tests.support.identities import server_sum

KEYS = ("advertise_keys", "share_keys")
# What follows the keys in a round, by profile.
REST = {
    "semi-honest": ("mask_input", "reveal_shares"),
    "one-answer": ("mask_input", "reveal_shares"),
    "consistency": ("mask_input", "agree_survivors", "reveal_shares"),
}
PROFILES = tuple(REST)
# Of each tier a part is drawn, so that every round has clients that the round before had not.
CHANGING = {
    "large": {"rank": 3, "clients": 6, "cohort": 4},
    "small": {"rank": 1, "clients": 6, "cohort": 2},
}
SIX = {"large": {"rank": 3, "clients": 4}, "small": {"rank": 1, "clients": 2}}
Silences = Mapping[tuple[int, ClientId], str]


def masking(profile: str, **changes: Any) -> dict[str, Any]:
    return {"secure_sum": "masking", "masking": {"profile": profile}, **changes}


class KilledError(Exception):
    """Stands for the end of the process."""


class Run:
    """A run of a plan in a folder of its own."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.path = path
        self.plan: Plan = make_plan(**changes)
        self.exchanges: list[InMemory] = []
        RunFolder.create(path, self.plan.config).close()

    def go_on(
        self,
        *,
        until: int = 0,
        silent_in: Silences | None = None,
        participants: Mapping[ClientId, Participant] | None = None,
    ) -> Progress:
        """Open the folder, and run from its last checkpoint; a number of rounds ends the process after so many."""

        def observe(record: RoundRecord, _seconds: RoundSeconds) -> None:
            if record.round == until:
                raise KilledError

        folder = RunFolder.open(self.path)
        exchange = InMemory(participants or make_participants(self.plan), silent_in=silent_in)
        self.exchanges.append(exchange)
        try:
            return Coordinator(
                plan=self.plan,
                secure_sum=server_sum(self.plan),
                folder=folder,
                exchange=exchange,
                evaluate=lambda adapter: (0.5, float(adapter.rows.sum())),
                stopwatch=Stopwatch(),
                observers=[WhenSaved(observe)],
            ).run(folder.load(self.plan))
        finally:
            folder.close()

    def in_pieces(self, *, silent_in: Silences | None = None) -> Progress:
        """Every round in a process of its own, with participants that know of no round before."""
        for number in range(1, self.plan.config.rounds):
            with pytest.raises(KilledError):
                self.go_on(until=number, silent_in=silent_in)
        return self.go_on(silent_in=silent_in)

    def stages(self) -> list[list[tuple[int, str]]]:
        """Exchange by exchange of the last process: which stages of which rounds it carried."""
        return [
            sorted({(parcel.round, parcel.stage) for parcels in messages.values() for parcel in parcels})
            for messages in self.exchanges[-1].sent
        ]

    def adapters(self) -> list[str]:
        """The digest of the adapter after every round."""
        folder = RunFolder.open(self.path)
        try:
            return [record.adapter for record in folder.load(self.plan).records]
        finally:
            folder.close()


def metrics(run: Run) -> bytes:
    return (run.path / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"secure_sum": "plain"},
        masking("semi-honest"),
        masking("one-answer"),
        masking("consistency", tiers=CHANGING),
        masking("one-answer", tiers=CHANGING),
        masking("one-answer", upload="padded"),
        masking("one-answer", quantization={"bits": 12, "bound": 0.1, "ring_bits": 16}),
    ],
)
@pytest.mark.parametrize("silent_in", [{}, {(2, "small-01"): "mask_input", (3, "large-02"): "share_keys"}])
def test_a_whole_run_and_one_in_pieces_are_the_same(
    tmp_path: Path, changes: dict[str, Any], silent_in: Silences
) -> None:
    """Resumed from every checkpoint with fresh participants, a run gives the metrics and adapters of a whole one."""
    whole, pieces = (Run(tmp_path / name, rounds=4, **changes) for name in ("whole", "pieces"))

    at_once = whole.go_on(silent_in=silent_in)
    resumed = pieces.in_pieces(silent_in=silent_in)

    assert at_once.adapter is not None
    assert resumed.adapter is not None
    assert at_once.adapter.to_bytes() == resumed.adapter.to_bytes()
    assert metrics(whole) == metrics(pieces)
    assert len(set(whole.adapters())) == 4
    assert [record.aborted for record in at_once.records] == [""] * 4


@pytest.mark.parametrize("profile", PROFILES)
def test_a_steady_round_carries_the_keys_of_the_next(tmp_path: Path, profile: str) -> None:
    """After two exchanges for the first keys, a round takes two, and three where clients sign the survivor list."""
    run = Run(tmp_path / "run", rounds=3, **masking(profile))

    run.go_on()

    rest = REST[profile]
    early = [*KEYS, None][: len(rest)]
    steady = [
        [(number, stage), *([(number + 1, key)] if key is not None and number < 3 else [])]
        for number in (1, 2, 3)
        for stage, key in zip(rest, early, strict=True)
    ]
    assert run.stages() == [[(1, stage)] for stage in KEYS] + steady
    assert len(run.stages()) == 2 + 3 * len(rest)


def test_a_round_in_the_clear_is_one_exchange(tmp_path: Path) -> None:
    """Plain sums have no keys to carry."""
    run = Run(tmp_path / "run", rounds=3, secure_sum="plain")

    run.go_on()

    assert run.stages() == [[(number, "upload")] for number in (1, 2, 3)]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_participant_gets_one_message_an_exchange(tmp_path: Path, profile: str) -> None:
    """Its parcels of both rounds travel together, this round's first."""
    run = Run(tmp_path / "run", rounds=2, **masking(profile))

    run.go_on()

    merged = run.exchanges[0].sent[2]
    assert set(merged) == set(run.plan.ranks)
    for parcels in merged.values():
        assert [(parcel.round, parcel.stage) for parcel in parcels] == [(1, "mask_input"), (2, KEYS[0])]


@pytest.mark.parametrize("profile", PROFILES)
def test_cohorts_may_change_from_round_to_round(tmp_path: Path, profile: str) -> None:
    """Whoever is in one of two neighbouring rounds gets the parcels of that one; late joiners begin like all others."""
    run = Run(tmp_path / "masking", rounds=6, **masking(profile, tiers=CHANGING))
    plain = Run(tmp_path / "plain", rounds=6, secure_sum="plain", tiers=CHANGING)

    progress = run.go_on()
    plain.go_on()

    cohorts = [
        set(sample_cohort(run.plan.config.tiers, seed=0, round_number=number)) for number in range(1, 7)
    ]
    assert any(later - earlier for earlier, later in pairwise(cohorts))
    assert set().union(*cohorts[1:]) - cohorts[0]
    for messages in run.exchanges[0].sent:
        for client, parcels in messages.items():
            assert all(client in cohorts[parcel.round - 1] for parcel in parcels)
    for record, cohort in zip(progress.records, cohorts, strict=True):
        assert set(record.survivors) == cohort
        assert (record.refusals, record.dropped, record.refused_bands) == ({}, {}, {})
    assert run.adapters() == plain.adapters()


@pytest.mark.parametrize("client", ["large-02", "small-01"])
@pytest.mark.parametrize(
    ("profile", "stage"), [(profile, stage) for profile in PROFILES for stage in (*KEYS, *REST[profile])]
)
def test_a_drop_out_costs_its_own_round_alone(
    tmp_path: Path, profile: str, stage: str, client: ClientId
) -> None:
    """Silent from any stage of round 2 on, a client is missed there as in the clear, and in no neighbouring round."""
    uploaded = stage in REST[profile][1:]
    run = Run(tmp_path / "masking", rounds=3, **masking(profile, tiers=SIX))
    plain = Run(tmp_path / "plain", rounds=3, secure_sum="plain", tiers=SIX)

    progress = run.go_on(silent_in={(2, client): stage})
    plain.go_on(silent_in={} if uploaded else {(2, client): "upload"})

    assert [record.dropped for record in progress.records] == [{}, {client: stage}, {}]
    assert [client in record.survivors for record in progress.records] == [True, uploaded, True]
    assert [record.refusals for record in progress.records] == [{}] * 3
    assert run.adapters() == plain.adapters()


@pytest.mark.parametrize(
    ("profile", "stage"), [(profile, stage) for profile in PROFILES for stage in (*KEYS, *REST[profile])]
)
def test_an_aborted_round_leaves_its_neighbours_alone(tmp_path: Path, profile: str, stage: str) -> None:
    """With too few left at any stage of round 2, that round changes nothing; those before and after are whole."""
    run = Run(tmp_path / "masking", rounds=3, **masking(profile))
    silent = {(2, client): stage for client in ("large-01", "large-03", "small-02")}

    progress = run.go_on(silent_in=silent)

    first, second, third = progress.records
    assert second.aborted.startswith(f"{stage}: 3 of 6 clients answered")
    assert second.dropped == {client: stage for _, client in silent}
    assert first.adapter == second.adapter != third.adapter
    assert (first.aborted, third.aborted) == ("", "")
    assert len(first.survivors) == len(third.survivors) == 6


def test_a_client_may_fail_in_both_rounds_of_an_exchange(tmp_path: Path) -> None:
    """Round 1 loses it after its upload, round 2 at its keys, in the same exchange."""
    run = Run(tmp_path / "run", rounds=3, **masking("one-answer", tiers=SIX))

    progress = run.go_on(silent_in={(1, "large-01"): "reveal_shares", (2, "large-01"): "share_keys"})

    assert [record.dropped for record in progress.records] == [
        {"large-01": "reveal_shares"},
        {"large-01": "share_keys"},
        {},
    ]
    assert ["large-01" in record.survivors for record in progress.records] == [True, False, True]


def test_the_next_round_is_open_before_this_one_is_revealed(tmp_path: Path) -> None:
    """The next cohort gets its invitations together with this round's request for inputs, its attempt is on the disk."""
    run = Run(tmp_path / "run", rounds=2, **masking("one-answer"))
    lines: list[str] = []

    class Watched(dict[ClientId, Participant]):
        def __getitem__(self, name: ClientId) -> Participant:
            lines[:] = (run.path / "attempts.jsonl").read_text().splitlines()
            return super().__getitem__(name)

    with pytest.raises(KilledError):
        run.go_on(until=1, participants=Watched(make_participants(run.plan)))

    assert lines == ['{"round": 1, "attempt": 1}', '{"round": 2, "attempt": 1}']
    assert run.stages()[2] == [(1, "mask_input"), (2, "advertise_keys")]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("upload", ["banded", "padded"])
def test_every_profile_sums_like_the_clear(tmp_path: Path, profile: str, upload: str) -> None:
    """Whichever server a profile protects against, and whatever is padded, the adapters are those of plain sums."""
    run = Run(tmp_path / "masking", rounds=3, **masking(profile, upload=upload))
    plain = Run(tmp_path / "plain", rounds=3, secure_sum="plain")

    run.go_on()
    plain.go_on()

    assert run.adapters() == plain.adapters()


@pytest.mark.parametrize("mode", ["plain", "masking"])
@pytest.mark.parametrize("average", ["rbla", "zero-pad"])
@pytest.mark.parametrize("weights", ["uniform", "examples"])
@pytest.mark.parametrize("silent_in", [{}, {(2, "small-01"): "upload"}, {(2, "large-02"): "upload"}])
def test_padding_changes_the_messages_alone(
    tmp_path: Path, mode: str, average: str, weights: str, silent_in: Silences
) -> None:
    """Zeros of weight zero give the adapters of banded uploads to the byte, while every rank sends as many bytes."""
    stage = {"plain": "upload", "masking": "mask_input"}[mode]
    silences = dict.fromkeys(silent_in, stage)
    common = {"rounds": 3, "secure_sum": mode, "average": average, "weights": weights}
    banded = Run(tmp_path / "banded", **common)
    padded = Run(tmp_path / "padded", upload="padded", **common)

    sent = {
        name: [record.bytes_up_by_rank for record in run.go_on(silent_in=silences).records]
        for name, run in (("banded", banded), ("padded", padded))
    }

    assert banded.adapters() == padded.adapters()
    assert len(set(banded.adapters())) == 3
    for number, (thin, thick) in enumerate(zip(sent["banded"], sent["padded"], strict=True), start=1):
        assert thin["1"] < thin["3"]
        if (number, "small-01") not in silences and (number, "large-02") not in silences:
            assert thick["1"] == thick["3"] > thin["1"]


def test_padding_sends_everybody_the_whole_adapter(tmp_path: Path) -> None:
    """All are bound to the rows of every band that they upload, held or not."""
    run = Run(tmp_path / "run", rounds=1, **masking("one-answer", upload="padded"))

    run.go_on()

    sizes = {
        len(parcel.data)
        for parcels in run.exchanges[0].sent[2].values()
        for parcel in parcels
        if parcel.stage == "mask_input"
    }
    assert len(sizes) == 1


@pytest.mark.parametrize("mode", ["plain", "masking"])
@pytest.mark.parametrize(("bits", "ring_bits"), [(16, 20), (16, 24), (12, 16)])
def test_a_smaller_ring_sums_the_same_with_fewer_bytes(
    tmp_path: Path, mode: str, bits: int, ring_bits: int
) -> None:
    """Where every sum fits, fewer bits an element give the same adapters; what is saved is the upload."""
    common = {"rounds": 2, "secure_sum": mode}
    small = Run(
        tmp_path / "small", quantization={"bits": bits, "bound": 0.1, "ring_bits": ring_bits}, **common
    )
    large = Run(tmp_path / "large", quantization={"bits": bits, "bound": 0.1}, **common)

    less, more = (run.go_on().records for run in (small, large))

    assert small.adapters() == large.adapters()
    # A client of rank 3 uploads 12 and 23 elements, one of rank 1 the first 12.
    for one, other in zip(less, more, strict=True):
        for rank, lengths in (("1", (12,)), ("3", (12, 23))):
            saved = sum(4 * length - (length * ring_bits + 7) // 8 for length in lengths)
            assert other.bytes_up_by_rank[rank] - one.bytes_up_by_rank[rank] == saved
