"""A program for coverage-guided fuzzing (atheris): `python tests/dns/fuzz_front.py [libFuzzer options]`.

The first byte chooses transport and client, the rest is the message. It ends at the first broken rule.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["fairlead_dns"]):
    from fairlead_dns.decisions import wire
    from fairlead_dns.decisions.asked import Came, Transport

from harness.fuzzing import CLIENTS, agrees, everything, holds

FRONT = everything()
TRANSPORTS = tuple(Transport)


def one(data: bytes) -> None:
    if not data:
        return
    how, packet = data[0], data[1:]
    agrees(packet)
    holds(FRONT, packet, Came(TRANSPORTS[how % len(TRANSPORTS)], CLIENTS[how // 16 % len(CLIENTS)]))


if __name__ == "__main__":
    assert wire.HEADER_BYTES == 12
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
