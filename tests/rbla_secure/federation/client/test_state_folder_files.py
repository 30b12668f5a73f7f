"""Damaged, full, linked and replaced state folders are refused by name."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from protocols.interface import ExtraSecrets, SecureSum, SegmentInput, SumClient, SumServer
from protocols.session import ClientId, Session
from rbla_secure.errors import RefusalError
from rbla_secure.federation.broadcast import Broadcast, band_digests
from rbla_secure.federation.client import state_folder
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.client.state_folder import StateFolder
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.lora.adapter import Adapter, Rows
from tests.rbla_secure.federation.client.remembering import ME, Opener, answer, client, refusal
from tests.rbla_secure.federation.client.test_memory import sent
from tests.support.federations import drift, make_plan, make_session

# The file.


def memory_file(folder: Path, seed: int = 0) -> Path:
    return folder / f"memory-seed-{seed}.safetensors"


def test_the_file_is_private_and_one_for_each_seed(tmp_path: Path, opened: Opener) -> None:
    """Mode 0600, beside the lock."""
    for plan in (make_plan(), make_plan(seed=1)):
        answer(plan, client(plan, opened(plan)))

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lock",
        memory_file(tmp_path).name,
        memory_file(tmp_path, 1).name,
    ]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def changed_by(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    assert len(old) == len(new)
    return lambda data: data.replace(old, new)


def in_numbers_of(kind: str) -> Callable[[bytes], bytes]:
    """The file of one value, of a type that safetensors knows and numpy does not."""
    size = 2 if kind == "BF16" else 1
    tensor = {"dtype": kind, "shape": [1, 1], "data_offsets": [0, size]}
    header = json.dumps({"rows": tensor}).encode()
    return lambda _data: len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-8],
        changed_by(b'"given":"1"', b'"given":"x"'),
        changed_by(b'"given":"1"', b'"given":"7"'),
        changed_by(b'"sent":"1"', b'"sent":"-"'),
        changed_by(b'"clip_norm":"0x1.', b'"clip_norm":"0x2.'),
        changed_by(b'"seed":"0"', b'"seed":"1"'),
        changed_by(b'"seed"', b'"deed"'),
        in_numbers_of("BF16"),
        in_numbers_of("F8_E4M3"),
    ],
)
def test_a_damaged_memory_stops_the_client(
    tmp_path: Path, opened: Opener, damage: Callable[[bytes], bytes]
) -> None:
    """Without its memory a client could give a round twice: it does not start, and the file stays as it is."""
    plan = make_plan()
    answer(plan, client(plan, opened(plan)))
    file = memory_file(tmp_path)
    before = damage(file.read_bytes())
    assert before != file.read_bytes()
    file.write_bytes(before)

    with pytest.raises(RefusalError, match=r"is damaged .* restore it"):
        opened(plan)
    assert file.read_bytes() == before


def test_a_file_of_another_version_is_refused(tmp_path: Path, opened: Opener) -> None:
    """By its format; and one of the former name before anything else, for it names no seed."""
    plan = make_plan()
    answer(plan, client(plan, opened(plan)))
    file = memory_file(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"format":"2"', b'"format":"3"'))

    with pytest.raises(RefusalError, match="has format 3, and this version reads 2"):
        opened(plan)
    file.rename(tmp_path / "given-0123456789abcdef.safetensors")
    with pytest.raises(RefusalError, match="of an earlier version, which wrote down neither seed nor client"):
        opened(plan)


# Folders that cannot be written.


def full(*_arguments: object, **_more: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_before_training_costs_the_attempt(
    monkeypatch: pytest.MonkeyPatch, opened: Opener
) -> None:
    """Nothing is trained on a model that is not written down; with room again the same session goes on."""
    plan, trained = make_plan(), []

    def train(adapter: Adapter, seed: int) -> Rows:
        trained.append(seed)
        return drift(adapter, seed)

    me = client(plan, opened(plan), train=train)
    with monkeypatch.context() as patch:
        patch.setattr(state_folder, "write_atomic", full)
        found = refusal(answer(plan, me))

    assert "state folder cannot be written (No space left on device): nothing leaves" in found
    assert not trained
    assert isinstance(answer(plan, me), StageReply)


def test_a_full_disk_after_training_keeps_the_input_here(
    monkeypatch: pytest.MonkeyPatch, opened: Opener
) -> None:
    """The session is over for the client, and another attempt follows."""
    plan = make_plan()
    memory = opened(plan)
    memory.accept(sent(plan, plan.initial_adapter), 1)
    me = client(plan, memory)
    with monkeypatch.context() as patch:
        patch.setattr(state_folder, "write_atomic", full)
        found = refusal(answer(plan, me))

    assert "cannot be written (No space left on device)" in found
    assert memory.given == 0
    assert "must come after" in refusal(answer(plan, me))
    assert isinstance(answer(plan, me, attempt=2), StageReply)


class TwoSteps(SecureSum, SumClient):
    """A secure sum that sends its input one stage after it was made, as encryption does."""

    name, stages, input_stage = "two steps", ("commit", "upload"), "commit"
    ended = False

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> SumClient:
        return self

    def server(self, session: Session) -> SumServer:
        raise NotImplementedError

    def contribute(self, request: bytes, inputs: Mapping[int, SegmentInput]) -> bytes:
        return b"receipt"

    def reply(self, request: bytes) -> bytes:
        return b"the input"

    def end(self) -> None:
        self.ended = True


def test_an_input_that_was_not_written_down_leaves_by_no_later_stage(
    monkeypatch: pytest.MonkeyPatch, opened: Opener
) -> None:
    """Under encryption the input itself is sent a stage later: that stage is refused too."""
    plan = make_plan()
    memory, steps = opened(plan), TwoSteps()
    memory.accept(sent(plan, plan.initial_adapter), 1)
    me = Participant(ME, plan=plan, secure_sum=steps, train=drift, examples=10, memory=memory)
    upload = StageRequest(session=make_session(plan).to_bytes(), payload=b"list").to_bytes()
    monkeypatch.setattr(state_folder, "write_atomic", full)

    refusal(answer(plan, me))

    assert isinstance(decode_answer(me.handle(upload)), StageRefusal)
    assert steps.ended


def test_a_folder_that_refuses_files_is_a_refusal_by_name(tmp_path: Path, opened: Opener) -> None:
    """Whatever the operating system says: here something is in the way that it will not remove."""
    plan = make_plan()
    me = client(plan, opened(plan))
    (tmp_path / f".{memory_file(tmp_path).name}.tmp").mkdir()

    assert "this client's state folder cannot be written (" in refusal(answer(plan, me))


def test_a_folder_that_may_not_be_locked_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: Opener
) -> None:
    """What a read-only one says to everybody but the superuser; and a file in its place."""
    monkeypatch.setattr(state_folder, "lock", _denied)
    with pytest.raises(RefusalError, match=r"cannot be used: Permission denied; it must be a folder"):
        opened(make_plan())
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusalError, match=r"cannot be used: File exists"):
        opened(make_plan(), folder=tmp_path / "file")


def _denied(_folder: Path) -> int:
    raise PermissionError(13, "Permission denied")


# Links.


def test_a_folder_that_is_replaced_while_it_is_in_use_is_not_written_to(
    tmp_path: Path, opened: Opener
) -> None:
    """By a link to an older copy, or by that copy itself: nothing leaves, and neither changes."""
    plan = make_plan()
    folder, copy = tmp_path / "state", tmp_path / "copy"
    copy.mkdir()
    me = client(plan, opened(plan, folder=folder))
    folder.rename(tmp_path / "away")
    folder.symlink_to(copy)

    assert "it was replaced while it was in use" in refusal(answer(plan, me))
    folder.unlink()
    copy.rename(folder)
    assert "it was replaced while it was in use" in refusal(answer(plan, me))
    assert list(folder.iterdir()) == []


def test_links_are_refused_at_the_opening(tmp_path: Path, opened: Opener) -> None:
    """A link in the place of the folder, of its lock or of its file: what is behind it may be another client's."""
    plan = make_plan()
    answer(plan, client(plan, opened(plan, folder=tmp_path / "one")))
    (tmp_path / "link").symlink_to(tmp_path / "one")
    two = tmp_path / "two"
    two.mkdir()
    memory_file(two).symlink_to(memory_file(tmp_path / "one"))

    with pytest.raises(RefusalError, match="is a link: name the folder itself"):
        opened(plan, folder=tmp_path / "link")
    with pytest.raises(RefusalError, match="is a link: put the file itself there"):
        opened(plan, folder=two)
    (two / "lock").unlink()
    (two / "lock").symlink_to(tmp_path / "one" / "lock")
    with pytest.raises(RefusalError, match="cannot be used"):
        opened(plan, folder=two)


def test_a_state_folder_can_be_read_by_its_own_client_alone(tmp_path: Path) -> None:
    """The same rule where no memory is in between."""
    plan = make_plan()
    state = StateFolder(tmp_path, client=ME)
    memory = Memory(plan, state)
    memory.accept(
        Broadcast(adapter=plan.initial_adapter, digests=band_digests(plan, plan.initial_adapter)), 1
    )
    memory.close()

    other = StateFolder(tmp_path, client="large-01")
    with pytest.raises(RefusalError, match="not of large-01"):
        other.read(plan)
    other.close()
