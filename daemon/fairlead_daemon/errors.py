"""The five errors of fairlead. Each says what the caller must do about it."""


class FairleadError(Exception):
    """Base of all of them; the message is lower case, names the thing, ends without a stop."""


class BadSettings(FairleadError):  # noqa: N818  # named for what it is; the five names are the project's words
    """A person must edit a file or an option: exit 2, the key is named."""


class Unavailable(FairleadError):  # noqa: N818  # see above
    """A peer did not answer, or the outcome is unknown: keep the last good state, retry with backoff."""


class Conflict(FairleadError):  # noqa: N818  # see above
    """Someone was first (a version, a lost leadership): re-read, plan again."""


class Refused(FairleadError):  # noqa: N818  # see above
    """A peer said no (HAProxy's check, a 4xx): keep the last good, alert."""


class Unsafe(FairleadError):  # noqa: N818  # see above
    """The plan removes too much: stop, alert, wait for a person's --force or confirm."""
