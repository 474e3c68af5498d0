"""`fairlead alert`: what the monitor knows to be wrong, by which rules, and what is not to be told for a while."""

import time
from collections.abc import Mapping
from typing import Any

import click

from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, verb
from fairlead_daemon.errors import BadSettings

MINUTE_S, HOUR_S = 60, 3600


@click.group()
def alert() -> None:
    """Alerts, rules and silences of the monitor.

    Example: fairlead alert list
    """


@alert.command(name="list", epilog="Example: fairlead alert list --all")
@click.option("--all", "every", is_flag=True, help="Also what was resolved within the last hour.")
@verb
def list_(use: Use, *, every: bool) -> None:
    """What is pending, firing or without data, since when. Exit code 1 when something fires."""
    page = _page(use)
    found = [a for a in page["alerts"] if every or a["state"] not in {"resolved", "gone"}]
    if use.as_json:
        show_json(found)
    else:
        columns = ("state", "rule", "since", "summary", "silenced", "id")
        show_table(columns, [_row(a, page["now_s"]) for a in found], empty="no alerts")
        if not page["acting"]:
            say("this monitor does not tell: another one leads, or the registry is out of sight")
    if any(a["state"] == "firing" for a in found):
        raise SystemExit(1)


@alert.command(epilog="Example: fairlead alert rules")
@verb
def rules(use: Use) -> None:
    """Every rule, its condition, and how many series it judges now (0: no data)."""
    found = _page(use)["rules"]
    if use.as_json:
        show_json(found)
        return
    show_table(
        ("rule", "severity", "for", "series", "when", "error"),
        [(r["name"], r["severity"], f"{r['for_s']:g} s", r["series"], r["when"], r["error"]) for r in found],
        empty="no rules",
    )


@alert.command(epilog="Example: fairlead alert silence agent-lost --label host=rack3-7 --for 2h --comment repair")
@click.argument("rule", default="")
@click.option("--for", "span", metavar="TIME", default="1h", show_default=True, help="As 30m, 2h.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only alerts with this label.")
@click.option("--comment", default="", help="Why.")
@click.option("--by", default="", help="Who. Default: your login name.")
@click.option("--end", metavar="ID", default="", help="End this silence instead.")
@click.option("--list", "only_list", is_flag=True, help="List silences instead.")
@verb
def silence(use: Use, rule: str, labels: tuple[str, ...], end: str, *, only_list: bool, **about: str) -> None:
    """Tell nobody about alerts of RULE, or with a label, for a while. They are judged on."""
    if only_list:
        _list_silences(use)
        return
    url = f"{use.addresses.monitor}/api/silences"
    if end:
        use.run(lambda calls: calls.url("DELETE", f"{url}/{end}"))
        _answer(use, {"ended": end}, f"silence {end} ended")
        return
    body = {
        "rule": rule,
        "labels": dict(_pair(text) for text in labels),
        "for": about["span"],
        "by": about["by"] or _login(),
        "comment": about["comment"],
    }
    made = use.run(lambda calls: calls.url("POST", url, body))
    _answer(use, made, f"silence {made['id']} until {_clock(made['until_s'])}")


def _list_silences(use: Use) -> None:
    found = _page(use)["silences"]
    if use.as_json:
        show_json(found)
        return
    show_table(
        ("id", "rule", "labels", "until", "by", "comment"),
        [
            (s["id"], s.get("rule", "any"), _labels(s), _clock(s["until_s"]), s.get("by", ""), s.get("comment", ""))
            for s in found
        ],
        empty="no silences",
    )


def _page(use: Use) -> Mapping[str, Any]:
    return dict(use.run(lambda calls: calls.url("GET", f"{use.addresses.monitor}/api/alerts")))


def _row(found: Mapping[str, Any], now_s: float) -> tuple[str, ...]:
    silenced = "yes" if found["silenced"] else ""
    return (found["state"], found["rule"], ago(now_s - found["since_s"]), found["summary"], silenced, found["id"])


def ago(span_s: float) -> str:
    """`12 s`, `4 min`, `3.5 h`."""
    if span_s < MINUTE_S:
        return f"{max(0.0, span_s):.0f} s"
    return f"{span_s / MINUTE_S:.0f} min" if span_s < HOUR_S else f"{span_s / HOUR_S:.1f} h"


def _labels(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in found.get("labels", {}).items())


def _clock(wall_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_s))


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise BadSettings(f"--label {text}: expected name=value")
    return name, value


def _login() -> str:
    import getpass  # noqa: PLC0415  # loads pwd, for this verb alone

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _answer(use: Use, value: object, text: str) -> None:
    if use.as_json:
        show_json(value)
    else:
        say(text)
