"""`fairlead explain`: why an app does not run, in the scheduler's words."""

from urllib.parse import quote

import click

from fairlead_console.balancer import app_problems
from fairlead_console.decisions.explanation import refusals, sentences
from fairlead_console.output import say, show_json, show_table
from fairlead_console.use import Use, verb
from fairlead_console.verbs.app import absolute, get_app, health


@click.command(epilog="Example: fairlead explain /demo/web")
@click.argument("app_id")
@verb
def explain(use: Use, app_id: str) -> None:
    """Why APP_ID runs or does not: what it waits for, which agent lacks what, what its last task said."""
    found = use.run(lambda calls: get_app(calls, app_id))
    told = use.run(lambda calls: calls.services("GET", f"/fairlead/explain?app={quote(absolute(app_id))}"))
    if use.as_json:
        show_json(told)
        return
    say(f"{found['id']}: {found.get('tasksRunning', 0)} of {found.get('instances', 0)} running, {health(found)}")
    for sentence in [*sentences(told), *use.run(lambda calls: app_problems(calls, absolute(app_id)))]:
        say(f"  {sentence}")
    if refused := refusals(told):
        say("")
        show_table(("agent", "host", "why not", "detail"), refused, empty="")
