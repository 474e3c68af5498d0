"""External signers: whoever keeps the real key signs, we say what. A command, or an HTTP hook."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from fairlead_daemon.client import call, make_session
from fairlead_daemon.errors import Refused, Unavailable
from fairlead_discovery.adapters.x509 import Leaf

SIGN_S = 20.0
ANSWER_LIMIT_BYTES = 64 * 1024


class Signer(Protocol):
    """Gives a chain in PEM, the leaf first, for a signing request. Raises Refused, Unavailable."""

    async def sign(self, csr: str, leaf: Leaf) -> str: ...


@dataclass(frozen=True, slots=True)
class Command:
    """Gets the request on stdin and what to write into it as FAIRLEAD_… variables; the chain is its output."""

    arguments: tuple[str, ...]

    async def sign(self, csr: str, leaf: Leaf) -> str:
        try:
            child = await asyncio.create_subprocess_exec(
                *self.arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**_environment(leaf), "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        except OSError as error:
            raise Unavailable(f"signer {self.arguments[0]}: {error.strerror}") from error
        try:
            async with asyncio.timeout(SIGN_S):
                output, errors = await child.communicate(csr.encode())
        except TimeoutError as error:
            raise Unavailable(f"signer {self.arguments[0]}: no answer within {SIGN_S:g} s") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            raise Refused(f"signer {self.arguments[0]}: ended with {child.returncode}: {_words(errors)}")
        return output[:ANSWER_LIMIT_BYTES].decode("ascii", "replace")


@dataclass(frozen=True, slots=True)
class Hook:
    """POST of `{csr, spiffe_id, common_name, dns, life_s}`; the answer is `{"chain": "…"}`."""

    url: str
    token_file: Path | None = None

    async def sign(self, csr: str, leaf: Leaf) -> str:
        body = {
            "csr": csr, "spiffe_id": leaf.spiffe_id, "common_name": leaf.common_name,
            "dns": leaf.dns, "life_s": leaf.life_s,
        }  # fmt: skip
        async with make_session(self.token_file) as session:
            found = await call(session, "POST", self.url, body=body, wait_s=SIGN_S)
        try:
            return msgspec.convert(found, _Answer).chain
        except msgspec.ValidationError as error:
            raise Refused(f"signer {self.url}: {error}") from error


class _Answer(msgspec.Struct, frozen=True):
    chain: str


def _environment(leaf: Leaf) -> dict[str, str]:
    return {
        "FAIRLEAD_SPIFFE_ID": leaf.spiffe_id,
        "FAIRLEAD_COMMON_NAME": leaf.common_name,
        "FAIRLEAD_DNS": ",".join(leaf.dns),
        "FAIRLEAD_LIFE_S": str(round(leaf.life_s)),
    }


def _words(errors: bytes) -> str:
    return " ".join(errors.decode("utf-8", "replace").split())[-300:]
