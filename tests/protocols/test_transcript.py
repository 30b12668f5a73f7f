"""A transcript counts bytes per client, stage and direction and keeps no content."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.transcript import Transcript
from tests.contracts.sessions import PROPERTY

CROSSINGS = st.lists(
    st.tuples(
        st.booleans(), st.sampled_from(["a", "b"]), st.sampled_from(["keys", "input"]), st.binary(max_size=9)
    ),
    max_size=20,
)


@PROPERTY
@given(crossings=CROSSINGS)
def test_bytes_add_up_by_client_and_direction(crossings: list[tuple[bool, str, str, bytes]]) -> None:
    """What went up and what went down is counted apart, over all stages."""
    transcript = Transcript()
    for upwards, client, stage, message in crossings:
        (transcript.from_client if upwards else transcript.to_client)(client, stage, message)

    up, down = transcript.bytes_up(), transcript.bytes_down()

    for counted, upwards in ((up, True), (down, False)):
        assert counted == {
            name: sum(
                len(message) for way, client, _, message in crossings if way == upwards and client == name
            )
            for name in {client for way, client, _, _ in crossings if way == upwards}
        }


def test_stages_are_counted_apart() -> None:
    """The counters tell clients and stages apart."""
    transcript = Transcript()

    transcript.from_client("a", "keys", b"123")
    transcript.from_client("a", "keys", b"4")
    transcript.from_client("a", "input", b"56")
    transcript.to_client("b", "keys", b"7")

    assert transcript.received == {("a", "keys"): 4, ("a", "input"): 2}
    assert transcript.sent == {("b", "keys"): 1}


def test_a_message_of_no_bytes_is_a_message() -> None:
    """A client that was sent only empty messages appears with zero bytes."""
    transcript = Transcript()

    transcript.to_client("a", "upload", b"")

    assert transcript.bytes_down() == {"a": 0}
    assert transcript.bytes_up() == {}


def test_contents_are_not_kept() -> None:
    """Nothing of a message but its size is in the transcript."""
    transcript = Transcript()

    transcript.from_client("a", "input", b"a private message")

    assert "private" not in repr(transcript)
    assert "17" in repr(transcript)


def test_transcripts_do_not_share_counters() -> None:
    """Two transcripts count apart."""
    one, other = Transcript(), Transcript()

    one.from_client("a", "input", b"1")

    assert other.bytes_up() == {}
