"""The packets of a film, counted and hashed: whether it is whole, and the one that was written."""

import re
from collections.abc import Iterator
from hashlib import blake2b

START_CODE = re.compile(rb"\x00{2,}\x01")  # before each unit of a raw H.264 stream (Annex B)


class PacketDigest:
    """A running hash over the units of H.264 packets, the same for a raw stream and for one out of an mp4."""

    def __init__(self) -> None:
        self.count = 0
        self.state = blake2b(digest_size=16)

    def add_raw(self, packet: bytes) -> None:
        """A packet as the encoder gives it."""
        self._add(unit for unit in START_CODE.split(packet) if unit)

    def add(self, packet: bytes) -> None:
        """A packet of an mp4, where each unit stands behind its length."""
        self._add(_units(packet))

    def _add(self, units: Iterator[bytes]) -> None:
        self.count += 1
        for unit in units:
            unit = unit.rstrip(b"\x00")
            self.state.update(len(unit).to_bytes(4, "big") + unit)

    @property
    def digest(self) -> str:
        return f"{self.count} {self.state.hexdigest()}"


def _units(packet: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(packet):
        end = place + 4 + int.from_bytes(packet[place : place + 4], "big")
        yield packet[place + 4 : end]
        place = end
