"""Files that are followed: whatever stands in their place, nobody waits for it."""

import asyncio
import logging
import os
import threading

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_dns.adapters.files import certificate, text_file, tls_context
from fairlead_dns.adapters.regular import Aside, read_regular
from fairlead_dns.decisions.naming import Dialect
from fairlead_dns.naming_settings import NamingSettings, read_queries
from fairlead_dns.transfer_settings import TransferSettings, peers
from harness.certificates import self_signed


@pytest.mark.parametrize("kind", ["certificate", "secrets"])
async def test_a_fifo_in_place_of_a_followed_file_stops_nobody(tmp_path, caplog, kind):
    """Refused with a warning while running and by name at the start; nobody writes to it."""
    cert, key = self_signed(tmp_path)
    taken: list[str] = []
    if kind == "certificate":
        followed = certificate(cert, key, (tls_context(()),))
    else:
        followed = text_file("cookie_secrets", key, taken.append)
    followed.first()
    key.unlink()
    os.mkfifo(key)
    async with asyncio.timeout(20):
        await followed.look()
    said = [r.__dict__["fields"]["why"] for r in caplog.records if "why" in r.__dict__.get("fields", {})][-1]

    assert "not a regular file" in said
    with pytest.raises(BadSettings, match="not a regular file"):
        followed.first()


async def test_a_renewed_certificate_is_taken(tmp_path, caplog):
    """Both files at once; read aside, without an event loop that waits."""
    caplog.set_level(logging.INFO)
    cert, key = self_signed(tmp_path)
    followed = certificate(cert, key, (tls_context(()),))
    followed.first()
    self_signed(tmp_path)
    await followed.look()

    assert "changed files taken" in [r.getMessage() for r in caplog.records]


def test_a_fifo_as_keys_or_prepared_query_is_refused_by_name(tmp_path):
    """At the start and when read anew, which is the same reading."""
    file = tmp_path / "pipe"
    os.mkfifo(file, 0o600)
    consul = Dialect(kind="consul", queries=(str(file),))

    with pytest.raises(BadSettings, match=r"keys_file: .*not a regular file"):
        peers(TransferSettings(keys_file=str(file)))
    with pytest.raises(BadSettings, match="pipe: not a regular file"):
        read_queries(NamingSettings(dialects=(consul,)))


def test_a_file_without_end_is_refused(tmp_path):
    """Over its limit, without reading more of it; and what is no file at all."""
    file = tmp_path / "large"
    file.write_bytes(b"x" * 11)

    assert b"x" * 11 == read_regular(file, 11)
    with pytest.raises(OSError, match="over 10 bytes"):
        read_regular(file, 10)
    for other in ("/dev/zero", str(tmp_path)):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(tmp_path / other)


async def test_what_hangs_is_given_up_once_and_not_begun_again_beside(tmp_path):
    """As on a share that is gone. When it comes back, the next piece of work is done."""
    back, begun = threading.Event(), []
    aside = Aside()

    def hangs() -> None:
        begun.append("hangs")
        back.wait(60)

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await aside.run(hangs, 0.05)
    assert ["hangs"] == begun
    back.set()

    assert "done" == await aside.run(lambda: "done", 20)
    with pytest.raises(ZeroDivisionError):
        await aside.run(lambda: 1 // 0, 20)
