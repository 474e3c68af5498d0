"""`fairlead ca`: identities of services. Keys are made where they are used, and never sent."""

import asyncio
import time
from pathlib import Path
from typing import Any

import click

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, verb
from fairlead_daemon.errors import BadSettings, Refused, Unavailable


@click.group(epilog="Example: fairlead ca issue marathon:/shop/web --out /run/web/identity --keep")
def ca() -> None:
    """Short-lived certificates (SPIFFE ids) of the identity authority, and its roots.

    `fairlead ca --config FILE` runs the authority itself.
    """


@ca.command(epilog="Example: fairlead ca init --dir /var/lib/fairlead/ca --trust-domain prod.example.com")
@click.option("--dir", "folder", required=True, type=click.Path(path_type=Path), help="The daemon's ca_dir.")
@click.option("--trust-domain", default="fairlead.internal", show_default=True)
@verb
def init(use: Use, folder: Path, trust_domain: str) -> None:
    """Make the authority's folder and first root. What is there already stays."""
    from fairlead_discovery.authority import Authority  # noqa: PLC0415  # `--help` is fast without it

    made = Authority(folder=folder, trust_domain=trust_domain)
    before = (folder / "authority.json").exists()
    try:
        made.open()
    except OSError as error:
        raise BadSettings(f"--dir: {folder}: {error.strerror}") from error
    if use.as_json:
        show_json({"dir": str(folder), "trust_domain": trust_domain, "made": not before})
    else:
        say(f"{folder}: {'was there already' if before else 'made'}; trust domain {trust_domain}")


@ca.command(epilog="Example: fairlead ca status")
@verb
def status(use: Use) -> None:
    """The authority's roots: which signs, and until when the others are believed."""
    found = use.run(lambda calls: calls.url("GET", f"{use.addresses.ca}/v1/status"))
    if use.as_json:
        show_json(found)
        return
    say(f"trust domain {found['trust_domain']}, signed by {found['signs']}; leaves live {found['leaf_s'] / 3600:g} h")
    rows = [
        (r["name"], "yes" if r["signs"] else "no", _when(r["active_from_s"]), _when(r["retire_s"]))
        for r in found["roots"]
    ]
    show_table(("root", "signs", "signs from", "believed until"), rows, empty="its roots are the external signer's")


@ca.command(epilog="Example: fairlead ca issue marathon:/shop/web --out /run/web/identity --keep")
@click.argument("service")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for key, certificate and bundle.")
@click.option("--dns", multiple=True, help="Further host name of the certificate; may be repeated.")
@click.option("--life", "life_s", default=0.0, help="Seconds; default: the authority's longest.")
@click.option("--keep", is_flag=True, help="Stay, and renew at half of its life.")
@verb
def issue(use: Use, service: str, out: Path, dns: tuple[str, ...], life_s: float, *, keep: bool) -> None:
    """A certificate for SERVICE (framework:name), in a folder of mode 0700. Its key is made here, and stays here."""
    from fairlead_discovery import identities  # noqa: PLC0415  # see above

    asking = identities.Asking(
        authority=use.addresses.ca, service=service, token_file=use.addresses.token_path, dns=dns, life_s=life_s
    )
    place = identities.Identity(out)

    async def once() -> Any:
        key, answer = await identities.ask(asking)
        place.keep(key, answer)
        return answer

    try:
        answer = asyncio.run(once())
    except OSError as error:
        raise Refused(f"--out: {out}: {error.strerror}") from error
    if use.as_json:
        show_json(
            {"service": service, "spiffe_id": answer.spiffe_id, "not_after_s": answer.not_after_s, "dir": str(out)}
        )
    else:
        say(f"{answer.spiffe_id} until {_when(answer.not_after_s)}, in {out}")
    if keep:
        asyncio.run(identities.keep_fresh(place, asking, lambda: "", lambda: None))


@ca.command(epilog="Example: fairlead ca rotate && fairlead ca status")
@click.option("--at-once", is_flag=True, help="Give up the old roots now: a key was stolen. Calls fail until renewed.")
@verb
def rotate(use: Use, *, at_once: bool) -> None:
    """A new root. It is told first and signs later; the old ones are believed until their last leaf has ended."""
    body = {"at_once": at_once}
    found = use.run(lambda calls: calls.url("POST", f"{use.addresses.ca}/v1/rotate", body))
    newest = found["roots"][-1]
    if use.as_json:
        show_json(found)
    else:
        say(f"{newest['name']} signs from {_when(newest['active_from_s'])}")


@ca.command(epilog="Example: fairlead ca bundle > bundle.pem")
@verb
def bundle(use: Use) -> None:
    """Whom to believe: the roots, as PEM."""

    async def fetch(calls: Any) -> str:
        async with asyncio.timeout(10), calls.session.get(f"{use.addresses.ca}/v1/bundle") as answer:
            return str(await answer.text())

    try:
        text = use.run(fetch)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"no authority answers at {use.addresses.ca}") from error
    if use.as_json:
        show_json({"bundle": text})
    else:
        say(text.rstrip("\n"))


def _when(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(time_s)) if time_s else "-"
