"""`fairlead announce`: registers a service that fairlead does not schedule, while it is healthy."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fairlead_console.addresses import find
from fairlead_console.output import say
from fairlead_daemon.errors import BadSettings


@click.command(
    epilog="Example: fairlead announce --service shop --port 8080 --check http:/health --vhost shop.example.org"
)
@click.option("--service", default="", metavar="NAME", help="What to announce; its name is NAME.static.<domain>.")
@click.option("--port", default=0, help="Where it listens.")
@click.option("--host", default="", help="Its address, or a name. Default: this machine's, as the registry is reached.")
@click.option(
    "--config", default="", metavar="FILE", help="TOML with [[services]] and [[bridges]], or Nerve's JSON (*.json)."
)
@click.option("--check", "checks", multiple=True, metavar="CHECK", help="http:/path, https:/path, tcp, redis, rabbitmq, postgres, command:…, none. All must be good. Default: tcp.")  # fmt: skip
@click.option("--check-ca", default="", metavar="FILE", help="Authorities for https checks.  [default: the system's]")
@click.option("--check-insecure", is_flag=True, help="https checks take any certificate.")
@click.option("--interval", default=1.0, metavar="SECONDS", help="Between two checks.  [default: 1]")
@click.option("--timeout", default=1.0, metavar="SECONDS", help="How long a check may take.  [default: 1]")
@click.option("--rise", default=1, help="Good checks in a row until it is announced.  [default: 1]")
@click.option("--fall", default=2, help="Bad checks in a row until it is withdrawn.  [default: 2]")
@click.option("--framework", default="static", metavar="NAME", help="The middle of its name.  [default: static]")
@click.option("--vhost", default="", metavar="HOST", help="Virtual host at the balancer.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="As a task's: HAPROXY_0_PORT=10100 …")
@click.option("--weight", default=1.0, help="Its capacity beside the others'.  [default: 1]")
@click.option("--zone", default="", help="Where it stands.")
@click.option("--id", "identity", default="", help="Tells instances apart.  [default: <host>-<port>]")
@click.option("--drain", default=30.0, metavar="SECONDS", help="How long SIGTERM waits for balancers at most.")
@click.option("--write-nerve", is_flag=True, help="With Nerve's JSON: write its own nodes at zk_path too.")
@click.option(
    "--registry", "url", default="", metavar="URL", help="zk://… or local:…; default: as every verb finds it."
)
@click.option("--data-dir", default="", metavar="DIR", help="Data directory of the `fairlead up` to join.")
@click.option("--listen", default="", metavar="HOST:PORT", help="Serve /health, /ready and /metrics there.")
@click.option("--check-config", is_flag=True, help="Show what would be announced, and exit.")
def announce(**given: Any) -> None:
    """Announce a service while its checks are good, until SIGTERM; then withdraw it and wait until it is drained.

    Runs beside the service: as a sidecar, or a systemd unit.
    """
    from fairlead_daemon import logs  # noqa: PLC0415  # `--help` is fast without it
    from fairlead_discovery import announcer  # noqa: PLC0415  # see above
    from fairlead_discovery.decisions.announce_files import Wanted  # noqa: PLC0415  # see above

    url = given["url"] or find(given["data_dir"]).registry
    if not url:
        raise BadSettings("no registry known; give --registry, set FAIRLEAD_REGISTRY, or name --data-dir")
    logs.set_up("info")
    options = announcer.FileOptions(framework=given["framework"], write_nerve=given["write_nerve"])
    if given["config"]:
        wanted, where = announcer.wanted_of(Path(given["config"]), options), given["config"]
    else:
        wanted, where = Wanted(services=(_of_options(given),)), "announce"
    if given["listen"]:
        wanted = replace(wanted, listen=given["listen"])
    if given["check_config"]:
        _show(announcer.with_hosts(wanted, announcer.own_address(url)), where)
        return
    asyncio.run(announcer.announce(url, wanted, where=where))


def _of_options(given: dict[str, Any]) -> Any:
    import msgspec  # noqa: PLC0415  # see above

    from fairlead_discovery.decisions.announcements import Service  # noqa: PLC0415  # see above
    from fairlead_discovery.decisions.checks import parse  # noqa: PLC0415  # see above

    if not given["service"] or not given["port"]:
        raise click.UsageError("give --service and --port, or --config")
    pace: dict[str, Any] = {
        "interval_s": given["interval"],
        "timeout_s": given["timeout"],
        "rise": given["rise"],
        "fall": given["fall"],
    }
    tls = {"ca": given["check_ca"], "verify": not given["check_insecure"]}
    checks = [parse(text) for text in given["checks"] or ("tcp",)]
    return Service(
        name=given["service"],
        host=given["host"],
        port=given["port"],
        framework=given["framework"],
        id=given["identity"],
        labels=dict(_label(text) for text in given["labels"]),
        vhost=given["vhost"],
        weight=given["weight"],
        zone=given["zone"],
        checks=tuple(
            msgspec.structs.replace(c, **pace, **(tls if c.type == "https" else {})) for c in checks if c.type != "none"
        ),
        drain_s=given["drain"],
    )


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.UsageError(f"--label {text}: expected KEY=VALUE")
    return key, value


def _show(wanted: Any, where: str) -> None:
    import msgspec  # noqa: PLC0415  # see above

    from fairlead_discovery.decisions.announcements import check_all  # noqa: PLC0415  # see above

    check_all(wanted.services, wanted.bridges, where=where)
    say(msgspec.json.format(msgspec.json.encode(wanted), indent=2).decode())
