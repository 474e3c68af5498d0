"""How long the next launch of a failing app waits: grows with each failure, forgets after quiet."""

import msgspec

from fairlead_core.services.decisions.app import App


class Delay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one configuration `version`. Launches wait until `until_s`; `delay_s` is the last wait."""

    version: str = ""
    delay_s: float = 0.0
    until_s: float = 0.0

    def left_s(self, app: App, *, now_s: float) -> float:
        """Seconds that a launch of `app` still waits; a new version never does."""
        return max(0.0, self.until_s - now_s) if self.version == app.config_version else 0.0


def after_failure(delay: Delay, app: App, *, now_s: float, ran_s: float) -> Delay:
    """The wait after one of the app's instances ended by itself, `ran_s` seconds after it had started.

    A first failure, one after a quiet time, or one of an instance that ran longer than the longest wait begins anew.
    """
    most_s = app.max_launch_delay_seconds
    fresh = (
        delay.version != app.config_version
        or ran_s > max(most_s, 1.0)
        or now_s > delay.until_s + delay.delay_s + most_s
    )
    wait_s = min(most_s, app.backoff_seconds if fresh or not delay.delay_s else delay.delay_s * app.backoff_factor)
    if not fresh and delay.until_s > now_s:  # several instances of one launch failed together: that is one failure
        return delay
    return Delay(version=app.config_version, delay_s=wait_s, until_s=now_s + wait_s)
