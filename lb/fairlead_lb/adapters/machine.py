"""The addresses of this machine, as the kernel lists them."""

from ipaddress import IPv6Address
from pathlib import Path

FIB = Path("/proc/net/fib_trie")
IPV6 = Path("/proc/net/if_inet6")


def addresses() -> frozenset[str]:
    """Of all interfaces; empty where the kernel does not say."""
    return frozenset((*_ipv4(_text(FIB)), *_ipv6(_text(IPV6))))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _ipv4(trie: str) -> list[str]:
    """`|-- 10.0.0.5` and below it `/32 host LOCAL`."""
    found: list[str] = []
    last = ""
    for line in trie.splitlines():
        text = line.strip()
        if text.startswith("|-- "):
            last = text[4:]
        elif text == "/32 host LOCAL":
            found.append(last)
    return found


def _ipv6(table: str) -> list[str]:
    """`fd000000000000000000000000000001 02 40 00 80 eth0`"""
    raw = [line[:32] for line in table.splitlines() if len(line) > 32]
    return [str(IPv6Address(int(digits, 16))) for digits in raw]
