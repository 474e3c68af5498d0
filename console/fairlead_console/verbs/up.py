"""`fairlead up`: the supervisor of everything on one machine."""

from pathlib import Path

import click


@click.command(epilog="Example: fairlead up --demo; or: fairlead up --zk 127.0.0.1:2181 --set dns_port=5353")
@click.option("--demo", is_flag=True, help="Deploy two small apps, one of which finds the other by name.")
@click.option("--zk", metavar="HOSTS", help="ZooKeeper as registry: host:port[,host:port][/chroot].")
@click.option("--data-dir", metavar="DIR", help="Default: ./.fairlead, as root /var/lib/fairlead.")
@click.option("--config", metavar="FILE", help="TOML file; unknown keys are refused.")
@click.option("--agents", type=click.IntRange(min=1), help="How many agents play machines. Default: 2.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override one key of the file.")
def up(
    *,
    demo: bool,
    zk: str | None,
    data_dir: str | None,
    config: str | None,
    agents: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Run everything on this machine: registry, master, agents, services, names, balancer.

    Ctrl-C ends it all and keeps the apps in the registry. Killed otherwise, it leaves everything running, and the
    next `fairlead up` takes over.
    """
    from fairlead_console.up.run import run  # noqa: PLC0415  # `--help` is fast without it

    given = {"registry": f"zk://{zk}" if zk else None, "data_dir": data_dir, "agents": agents}
    words = [f"{key}={_toml(value)}" for key, value in given.items() if value is not None]
    run(config=Path(config) if config else None, overrides=[*overrides, *words], with_demo=demo)


def _toml(value: object) -> str:
    from fairlead_console.decisions.toml import dump  # noqa: PLC0415  # see above

    return dump({"v": value}).partition("=")[2].strip()
