"""A task's own /etc/resolv.conf: what stands in it, and whether libc would read it at all."""

from collections.abc import Iterable

NAMESERVERS_MOST = 3  # libc reads no more (MAXNS)
HEADER = "# made by fairlead for this task: names of services first, then as the machine resolves"


def own_text(machine_text: str, *, address: str) -> str:
    """`address` first, then the machine's name servers, search list and options.

    `rotate` is dropped: it would ask the others first, and believe them when they deny our names.
    """
    lines = [line.split() for line in machine_text.splitlines()]
    given = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"] or ["127.0.0.1"]
    servers = [address, *(s for s in given if s != address)][:NAMESERVERS_MOST]
    rest = [" ".join(w for w in words if w != "rotate") for words in lines if words and _kept(words)]
    return "\n".join([HEADER, *(f"nameserver {s}" for s in servers), *rest]) + "\n"


def _kept(words: list[str]) -> bool:
    return words[0] in {"search", "domain", "sortlist"} or (words[0] == "options" and set(words[1:]) != {"rotate"})


def bypass(nsswitch_text: str, *, name_cache_runs: bool) -> str:
    """Why libc would not ask the servers of resolv.conf; "" when it does."""
    if name_cache_runs:
        return "nscd answers for libc and does not see a task's own resolv.conf"
    services = _hosts_services(nsswitch_text.splitlines())
    if "dns" not in services:
        return "nsswitch.conf has no dns among its hosts services"
    if "resolve" in services[: services.index("dns")]:
        return "nsswitch.conf asks systemd-resolved before dns"
    return ""


def _hosts_services(lines: Iterable[str]) -> list[str]:
    for line in lines:
        name, colon, rest = line.partition("#")[0].partition(":")
        if colon and name.strip() == "hosts":
            return [word for word in rest.split() if not word.startswith("[")]
    return ["files", "dns"]  # libc's own default


def is_answer(reply: bytes, *, query_id: int) -> bool:
    """Any reply to our query will do, REFUSED too: a DNS server is there."""
    return len(reply) >= 12 and int.from_bytes(reply[:2], "big") == query_id and bool(reply[2] & 0x80)


def query(query_id: int) -> bytes:
    """`leader.mesos. A`, recursion desired."""
    return query_id.to_bytes(2, "big") + b"\x01\0\0\1\0\0\0\0\0\0\6leader\5mesos\0\0\1\0\1"
