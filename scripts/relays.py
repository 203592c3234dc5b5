#!/usr/bin/env python3
"""Relays between the replicas of a local cluster, and between its proxy and each: to cut one off, or to slow it.

`scripts/cluster --relays` starts it; `scripts/cluster cut|slow|heal REPLICA` writes a file that it reads. It needs no
rights over the machine's network, which network namespaces and `tc` would.

cut    Between replicas silence in both directions: what is sent waits, connections stay, new ones are taken and get no
       answer, as where packets are dropped. Towards the proxy the connections break and new ones are refused.
slow   What replicas send to this one arrives so many milliseconds later, in order. Answers are not delayed.
"""

import argparse
import asyncio
import contextlib
import signal
from pathlib import Path

from medsearch_py.replicas import HOST, Ports, weather_file

LOOK_EVERY_S = 0.05
CHUNK_BYTES = 1 << 16
CHUNKS_MAX = 64
"""That wait in one direction of a connection."""


class Weather:
    """What is done to one replica at the moment."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.open = asyncio.Event()
        self.open.set()
        self.delay_s = 0.0

    @property
    def is_cut(self) -> bool:
        """Nothing reaches it."""
        return not self.open.is_set()

    def look(self) -> None:
        """Reads the file."""
        words = []
        with contextlib.suppress(FileNotFoundError):
            words = self.file.read_text().split()
        if words[:1] == ["cut"]:
            self.open.clear()
        else:
            self.open.set()
        self.delay_s = float(words[1]) / 1000 if words[:1] == ["slow"] and len(words) == 2 else 0.0


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: list[Weather], to: Weather | None
) -> None:
    """Carries one direction of a connection: while an end is cut off it waits, towards a slow one each part is late."""
    now = asyncio.get_running_loop().time
    parts: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)

    async def deliver() -> None:
        while True:
            due, part = await parts.get()
            if due > now():
                await asyncio.sleep(due - now())
            for end in ends:
                await end.open.wait()
            if not part:
                writer.write_eof()
                return
            writer.write(part)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        part = b"-"
        while part and not delivery.done():
            part = await reader.read(CHUNK_BYTES)
            await parts.put((now() + (to.delay_s if to else 0.0), part))
        await delivery
    finally:
        delivery.cancel()


class Relay:
    """One listening port and the port that it stands for."""

    def __init__(self, listen: int, target: int, ends: list[Weather], to: Weather | None) -> None:
        self.listen, self.target, self.ends, self.to = listen, target, ends, to
        self.server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Takes connections."""
        if self.server is None:
            self.server = await asyncio.start_server(self.take, HOST, self.listen)

    def refuse(self) -> None:
        """Breaks those that there are and takes no more."""
        if self.server is not None:
            self.server.close()
            self.server = None
            for writer in list(self.writers):
                writer.transport.abort()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until its end or that of the program."""
        with contextlib.suppress(asyncio.CancelledError):
            await self.carry(reader, writer)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions, until both sides have ended or one has broken."""
        writers = {writer}
        self.writers.add(writer)
        try:
            for end in self.ends:
                await end.open.wait()
            answers, there = await asyncio.open_connection(HOST, self.target)
            writers.add(there)
            self.writers.add(there)
            async with asyncio.TaskGroup() as both:
                both.create_task(pump(reader, there, self.ends, self.to))
                both.create_task(pump(answers, writer, self.ends, None))
        except* OSError:
            # The other side shall see it broken too.
            for each in writers:
                each.transport.abort()
        finally:
            self.writers -= writers
            for each in writers:
                each.close()


async def run(place: Path, count: int, ports: Ports) -> None:
    """Relays until it is stopped."""
    weather = [Weather(weather_file(place, number)) for number in range(count)]
    public = [Relay(ports.public_relay(number), ports.public(number), [], None) for number in range(count)]
    inner = [
        Relay(
            ports.inner_relay(asks, answers), ports.inner(answers), [weather[asks], weather[answers]], weather[answers]
        )
        for asks in range(count)
        for answers in range(count)
        if asks != answers
    ]
    for relay in inner:
        await relay.open()
    stopped = asyncio.Event()
    for which in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(which, stopped.set)
    while not stopped.is_set():
        for number, relay in enumerate(public):
            weather[number].look()
            if weather[number].is_cut:
                relay.refuse()
            else:
                await relay.open()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), LOOK_EVERY_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True, help="folder of the cluster's files")
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--port", type=int, required=True, help="the cluster's first port")
    args = parser.parse_args()
    asyncio.run(run(args.place, args.replicas, Ports(args.port)))


if __name__ == "__main__":
    main()
