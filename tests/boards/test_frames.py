"""Frames: what is sent is what is read, and what is no frame is refused."""

import itertools
import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_processes import keys_for

from boards.protocol import frames
from boards.protocol.frame_stream import FrameStream
from boards.protocol.frames import (
    HEADER,
    Features,
    Frame,
    FrameAssembler,
    FrameKind,
    MalformedFrameError,
    RefusalReason,
)
from boards.tls.identity import Identity


def reread(frame, largest_bytes=1 << 20):
    """Return a frame as its receiver has it."""
    content = frame.encoded()
    kind, number, length = frames.parse_header(content[: HEADER.size], largest_bytes)
    assert len(content) == HEADER.size + length
    return Frame(kind, number, content[HEADER.size :])


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**64 - 1))
def test_images_and_features_come_as_they_were_sent(count, width, number):
    values = np.random.default_rng(count * width).normal(size=(count, width)).astype(np.float32)
    frame = reread(frames.images_frame(number, values))
    assert frame.number == number
    assert np.array_equal(frames.parse_images(frame, width), values)
    back = frames.parse_features(
        reread(frames.features_frame(number, Features(values, 3, 4))), width
    )
    assert np.array_equal(back.values, values)
    assert (back.waited_ns, back.computed_ns) == (3, 4)


@given(
    st.lists(st.binary(max_size=50), max_size=6),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_frames_come_whole_and_in_order_however_they_are_cut(payloads, cuts):
    sent = [Frame(FrameKind.IMAGES, number, payload) for number, payload in enumerate(payloads)]
    content = b"".join(frame.encoded() for frame in sent)
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    assembly = FrameAssembler(50)
    came = []
    for start, end in itertools.pairwise(edges):
        assembly.add(content[start:end])
        while (frame := assembly.frame()) is not None:
            came.append(frame)
        assert assembly.begun == (sum(len(each.encoded()) for each in came) < end)
    assert came == sent


def test_an_assembly_refuses_what_it_will_not_hold():
    assembly = FrameAssembler(403)
    assembly.add(frames.images_frame(1, np.zeros((1, 100), np.float32)).encoded()[:100])
    with pytest.raises(MalformedFrameError, match="404 bytes; at most 403"):
        assembly.frame()


def test_hello_welcome_and_refusals_come_as_they_were_sent():
    students = ["student-0", "Schüler"]
    assert frames.parse_hello(reread(frames.hello_frame(students))) == students
    assert frames.parse_welcome(reread(frames.welcome_frame(12, 5))) == (12, 5)
    refused = reread(
        frames.refused_frame(9, RefusalReason.RESOURCE_EXHAUSTED, "64 requests wait already")
    )
    assert frames.parse_refusal(refused) == "RESOURCE_EXHAUSTED: 64 requests wait already"
    assert frames.advertised_port(["statistics", frames.format_extension(8002)]) == 8002
    assert frames.advertised_port(["nonn_frames/2(port=8002)", "statistics"]) is None


@given(st.binary(min_size=HEADER.size, max_size=HEADER.size))
def test_what_does_not_begin_as_a_frame_is_refused(content):
    if content[:5] != b"NoNN\x01":
        with pytest.raises(MalformedFrameError, match="not a frame"):
            frames.parse_header(content, 100)


def test_a_frame_that_is_too_long_is_refused_before_it_is_read():
    content = frames.images_frame(1, np.zeros((1, 100), np.float32)).encoded()
    with pytest.raises(MalformedFrameError, match="404 bytes; at most 403"):
        frames.parse_header(content[: HEADER.size], 403)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\1\0", b"\0\0\0\0", b"\2\0\0\0" + bytes(8), b"\1\0\0\0" + bytes(9)],
    ids=["empty", "cut", "no image", "one of two", "a byte more"],
)
def test_images_of_another_length_than_they_say_are_refused(payload):
    with pytest.raises(MalformedFrameError):
        frames.parse_images(Frame(FrameKind.IMAGES, 1, payload), 2)


def test_names_that_are_no_text_are_refused():
    with pytest.raises(MalformedFrameError, match="UTF-8"):
        frames.parse_hello(Frame(FrameKind.HELLO, 0, b"\xff"))


def test_a_welcome_of_another_length_is_refused():
    with pytest.raises(MalformedFrameError, match="another length"):
        frames.parse_welcome(Frame(FrameKind.WELCOME, 0, b"123"))


def stream_pair(tmp_path):
    """Two streams over TLS, a board's and its host's."""
    keys = keys_for(tmp_path / "keys", "pi")
    here, there = socket.socketpair()
    board = FrameStream(here, 1 << 20, Identity.read(keys / "pi").server_context())
    host = FrameStream(there, 1 << 20, Identity.read(keys / "host").client_context(), "pi")
    meeting = threading.Thread(target=host.handshake, args=(10,))
    meeting.start()
    board.handshake(10)
    meeting.join()
    return board, host


def test_frames_of_any_length_and_in_any_number_come_whole_over_tls(tmp_path):
    board, host = stream_pair(tmp_path)
    board.limit(10)
    images = [np.full((n, 1000), n, np.float32) for n in (1, 40, 1, 3)]
    content = b"".join(frames.images_frame(n, each).encoded() for n, each in enumerate(images))
    sending = threading.Thread(target=host.send_all, args=(content,))
    sending.start()
    for number, expected in enumerate(images):
        frame = board.wait_frame()
        assert frame.number == number
        assert np.array_equal(frames.parse_images(frame, 1000), expected)
    sending.join()
    host.close()
    with pytest.raises(EOFError):
        board.wait_frame()
    board.close()


def test_half_a_frame_and_an_answer_that_nobody_takes_end_in_time(tmp_path):
    board, host = stream_pair(tmp_path)
    board.limit(0.2)
    host.send_all(frames.hello_frame(["student-0"]).encoded()[:10])
    with pytest.raises(TimeoutError):
        board.wait_frame()
    with pytest.raises(TimeoutError):
        for _ in range(100):
            board.send_all(bytes(1 << 20))
    board.close()
    host.close()


def test_a_stranger_that_drips_bytes_does_not_hold_a_handshake_up(tmp_path):
    keys = keys_for(tmp_path / "keys", "pi")
    here, there = socket.socketpair()
    board = FrameStream(here, 1 << 20, Identity.read(keys / "pi").server_context())
    there.sendall(b"\x16\x03\x01\x02\x00")
    ended = threading.Event()

    def drip():
        while not ended.wait(0.05):
            there.send(b"\0")

    dripping = threading.Thread(target=drip)
    dripping.start()
    with pytest.raises(TimeoutError):
        board.handshake(0.3)
    ended.set()
    dripping.join()
    board.close()
    there.close()
