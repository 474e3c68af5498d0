"""`fairlead lb certificate`: certificates with their keys, sealed in the registry for every balancer."""

import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, registry_verb
from fairlead_console.verbs.registry import in_registry
from fairlead_daemon.errors import Refused


@click.group(epilog="Example: fairlead lb certificate put shop shop.pem --key-file /etc/fairlead/certificates.key")
def certificate() -> None:
    """Certificates that every balancer serves, without a reload: put, list, remove.

    They stand in the registry sealed with the first key of a key file, which each balancer has as `certificate_key_file`.
    """


def _key_file(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--key-file", type=click.Path(path_type=Path), required=required, envvar="FAIRLEAD_CERTIFICATE_KEY_FILE",
        show_envvar=True, help="As `certificate_key_file` of the balancers.",
    )  # fmt: skip


@certificate.command(epilog="Example: fairlead lb certificate key > /etc/fairlead/certificates.key")
def key() -> None:
    """Print a new key: `> FILE` begins a key file, `>> FILE` adds a key that opens. FILE gets mode 0600.

    To turn keys: add the new one to every balancer's file, then move it to the first line, then `reseal`.
    """
    from fairlead_lb.adapters.vault import new_key  # noqa: PLC0415  # `--help` is fast without it

    handle = sys.stdout.fileno()
    if os.isatty(handle):
        raise Refused("a key is a secret and is not shown here; write it to a file: fairlead lb certificate key > FILE")
    if stat.S_ISREG(os.fstat(handle).st_mode):
        os.fchmod(handle, 0o600)
    click.echo(new_key())


@certificate.command(epilog="Example: cat fullchain.pem privkey.pem | fairlead lb certificate put shop -")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@_key_file()
@registry_verb
def put(use: Use, name: str, file: Path, key_file: Path) -> None:
    """Serve certificate, chain and private key of FILE (PEM; `-` is stdin) as NAME; in the place of the one before.

    The name `default` is for hosts that no other certificate has.
    """
    from fairlead_lb.adapters.vault import looked_into, read_keys  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.certificates import registry_name  # noqa: PLC0415  # see above

    name = registry_name(name)
    keys = read_keys(key_file)
    pem = _pem(name, file)
    seen = looked_into(name, pem, now_s=time.time())
    in_registry(use, lambda opened: _write(opened, name, keys.seal(name, pem)))
    if use.as_json:
        show_json({"name": name, "names": seen.names, "subject": seen.subject, "not_after_s": seen.not_after_s})
    else:
        say(f"{name}: for {', '.join(seen.names) or seen.subject}, until {_day(seen.not_after_s)}")


@certificate.command(
    name="list", epilog="Example: fairlead lb certificate list --key-file /etc/fairlead/certificates.key"
)
@_key_file(required=False)
@registry_verb
def list_(use: Use, key_file: Path | None) -> None:
    """The certificates of the registry; what is in them only with the key file."""
    found = in_registry(use, _records)
    shown = [_told(name, one, key_file) for name, one in sorted(found.items()) if not one.removed]
    if use.as_json:
        show_json(shown)
        return
    rows = [
        (one["name"], ", ".join(one["names"]) or "-", _day(one["not_after_s"]), one["key"], one["problem"] or "-")
        for one in shown
    ]
    show_table(("name", "hosts", "until", "key", "problem"), rows, empty="no certificate is in the registry")


@certificate.command(epilog="Example: fairlead lb certificate remove shop")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also when it is not there: a balancer may still serve it.")
@registry_verb
def remove(use: Use, name: str, *, force: bool) -> None:
    """Serve NAME no more. The word stays in the registry, so that an empty registry takes no certificate away."""
    from fairlead_lb.decisions.certificates import Sealed, registry_name  # noqa: PLC0415  # see above

    name = registry_name(name)

    async def write(opened: Any) -> None:
        found = await _records(opened)
        if not force and (name not in found or found[name].removed):
            there = ", ".join(n for n, one in sorted(found.items()) if not one.removed)
            raise Refused(f"{name}: no such certificate; there are {there or 'none'}")
        await _write(opened, name, Sealed(removed=True))

    in_registry(use, write)
    if use.as_json:
        show_json({"removed": name})
    else:
        say(f"{name}: removed")


@certificate.command(epilog="Example: fairlead lb certificate reseal --key-file /etc/fairlead/certificates.key")
@_key_file()
@registry_verb
def reseal(use: Use, key_file: Path) -> None:
    """Seal all that another key sealed with the first key of the file; the others can then be taken out of it."""
    from fairlead_lb.adapters.vault import read_keys  # noqa: PLC0415  # see above

    keys = read_keys(key_file)

    async def write(opened: Any) -> list[str]:
        done = []
        for name, (one, version) in sorted((await _versions(opened)).items()):
            if not one.removed and one.key != keys.first:
                await _write(opened, name, keys.seal(name, keys.open(name, one)), expect=version)
                done.append(name)
        return done

    done = in_registry(use, write)
    if use.as_json:
        show_json({"resealed": done})
    else:
        say(f"resealed: {', '.join(done)}" if done else "nothing to do")


def _pem(name: str, file: Path) -> str:
    """Raises Refused without a word of what stands there."""
    from fairlead_lb.decisions.certificates import PEM_LIMIT_BYTES  # noqa: PLC0415  # see above

    try:
        with click.open_file(str(file), encoding="ascii") as stream:
            return str(stream.read(10 * PEM_LIMIT_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{name}: {file}: {error.strerror if isinstance(error, OSError) else 'not PEM'}") from error


def _told(name: str, one: Any, key_file: Path | None) -> dict[str, Any]:
    from fairlead_lb.adapters.vault import looked_into, read_keys  # noqa: PLC0415  # see above

    told: dict[str, Any] = {"name": name, "key": one.key, "names": (), "not_after_s": 0.0, "problem": ""}
    if key_file is None:
        return told
    try:
        seen = looked_into(name, read_keys(key_file).open(name, one), now_s=time.time())
    except Refused as error:
        return {**told, "problem": str(error)}
    return {**told, "names": seen.names, "not_after_s": seen.not_after_s}


async def _records(opened: Any) -> Mapping[str, Any]:
    return {name: one for name, (one, _) in (await _versions(opened)).items()}


async def _versions(opened: Any) -> Mapping[str, tuple[Any, int]]:
    """By name, with the version of the document. Raises Refused for one that cannot be read."""
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.records import decode  # noqa: PLC0415  # see above
    from fairlead_lb.decisions.certificates import Sealed  # noqa: PLC0415  # see above

    found = {}
    for name in await opened.tree.names(paths.CERTIFICATES):
        place = f"{paths.CERTIFICATES}/{name}"
        if (node := await opened.tree.get(place)) is not None:
            found[name] = (decode(Sealed, node.data, place=place), node.version)
    return found


async def _write(opened: Any, name: str, sealed: Any, *, expect: int = -1) -> None:
    from fairlead_discovery import paths  # noqa: PLC0415  # see above
    from fairlead_discovery.records import encode  # noqa: PLC0415  # see above

    await opened.write(paths.below(paths.CERTIFICATES, name), encode(sealed), expect=expect)


def _day(time_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time_s)) if time_s else "-"
