"""Relays cut a replica off and slow it, and leave alone what passes otherwise."""

import asyncio
import time
from pathlib import Path

import pytest

from relays import Relay, Weather

SLOW_S = 0.3
SILENT_S = 0.3


def weather(tmp_path: Path, name: str) -> Weather:
    return Weather(tmp_path / name)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(1 << 16):
        writer.write(part)
        await writer.drain()
    writer.close()


class Both:
    """An echo behind a relay."""

    def __init__(self, ends: list[Weather], to: Weather | None) -> None:
        self.ends, self.to = ends, to

    async def __aenter__(self) -> "Both":
        self.server = await asyncio.start_server(echo, "127.0.0.1", 0)
        self.relay = Relay(0, self.server.sockets[0].getsockname()[1], self.ends, self.to)
        await self.relay.open()
        self.port = self.relay.server.sockets[0].getsockname()[1]
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        self.relay.refuse()
        self.server.close()

    async def said(self, text: bytes, seconds: float = 5.0) -> bytes:
        """What comes back."""
        self.writer.write(text)
        return await asyncio.wait_for(self.reader.readexactly(len(text)), seconds)


def test_what_passes_is_left_alone(tmp_path):
    async def run() -> None:
        clear = weather(tmp_path, "clear")
        async with Both([clear], clear) as both:
            large = bytes(range(256)) * 4096
            began = time.monotonic()
            assert await both.said(large) == large
            assert time.monotonic() - began < SLOW_S
            both.writer.write_eof()
            assert await asyncio.wait_for(both.reader.read(), 5) == b""

    asyncio.run(run())


def test_one_direction_is_late_and_in_order(tmp_path):
    async def run() -> None:
        there = weather(tmp_path, "there")
        there.file.write_text(f"slow {SLOW_S * 1000}\n")
        there.look()
        async with Both([there], there) as both:
            began = time.monotonic()
            both.writer.write(b"one")
            await asyncio.sleep(0.05)
            assert await both.said(b"two+") == b"onet"
            assert await asyncio.wait_for(both.reader.readexactly(3), 5) == b"wo+"
            # Both parts are late by as much, and not the second by twice as much.
            assert SLOW_S <= time.monotonic() - began < 1.8 * SLOW_S
            there.file.unlink()
            there.look()
            began = time.monotonic()
            assert await both.said(b"three") == b"three"
            assert time.monotonic() - began < SLOW_S

    asyncio.run(run())


@pytest.mark.parametrize("end", [0, 1])
def test_silence_in_both_directions_until_it_is_healed(tmp_path, end):
    async def run() -> None:
        ends = [weather(tmp_path, "asks"), weather(tmp_path, "answers")]
        async with Both(ends, ends[1]) as both:
            assert await both.said(b"before") == b"before"
            ends[end].file.write_text("cut\n")
            ends[end].look()
            assert ends[end].is_cut
            with pytest.raises(TimeoutError):
                await both.said(b"lost?", SILENT_S)
            reader, writer = await asyncio.open_connection("127.0.0.1", both.port)
            writer.write(b"new")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(3), SILENT_S)
            ends[end].file.unlink()
            ends[end].look()
            assert await asyncio.wait_for(both.reader.readexactly(5), 5) == b"lost?"
            assert await asyncio.wait_for(reader.readexactly(3), 5) == b"new"
            writer.close()

    asyncio.run(run())


def test_towards_the_proxy_connections_break():
    async def run() -> None:
        async with Both([], None) as both:
            assert await both.said(b"before") == b"before"
            both.relay.refuse()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await both.said(b"after")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", both.port)

    asyncio.run(run())
