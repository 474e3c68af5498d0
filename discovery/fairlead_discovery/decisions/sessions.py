"""What to do when the line to ZooKeeper, or our session there, changes: one table, complete.

A *suspended* session may live on: nothing of it is given up, and nothing is claimed by it. An *expired* one is over,
with all it held.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

LAG_S = 20.0
"""A server of an ensemble lags behind its leader by syncLimit at most, 10 s as delivered, else it serves nobody."""


class State(enum.Enum):
    FAR = "no line, and no session of ours that could live"
    CHECKING = "a line; whose registry it is, is being read"
    LIVE = "in sight"
    SUSPENDED = "no line; our session may live"
    CLOSED = "closed by ourselves"


class Event(enum.Enum):
    OPENED = "a line, with a session that is new"
    RESUMED = "a line, with the session we had"
    SUSPENDED = "the line broke, or went silent for two thirds of the session's time"
    EXPIRED = "the servers say that the session is over"
    REFUSED = "the servers refuse our credentials; the client has given up"
    ENDED = "the client has given up for no reason of ours"
    CHECKED = "the cluster's record was read: it is for us"
    BARRED = "the cluster's record changed: it is not for us any more"
    CLOSED = "we close"


class Action(enum.Enum):
    """In the order in which they are to be done."""

    HALT = "stop reading the cluster's record"
    HIDE = "out of sight: claim no leadership, hold announcements and candidacies, call what was read stale"
    FORGET = "the session is over with all it held: it is announced, and stood for, again in the next one"
    AGAIN = "begin with another client, after a while"
    CHECK = "read the cluster's record, again and again until it is for us; trust no folder to be still there"
    SHOW = "in sight: read everything anew (no watch has survived), announce, stand for election"


@dataclass(frozen=True, slots=True)
class Turn:
    state: State
    actions: tuple[Action, ...] = ()


_S, _E, _A = State, Event, Action
_AWAY = {
    _E.OPENED: Turn(_S.CHECKING, (_A.CHECK,)),
    _E.RESUMED: Turn(_S.CHECKING, (_A.CHECK,)),
    _E.SUSPENDED: Turn(_S.FAR),
    _E.EXPIRED: Turn(_S.FAR),
    _E.REFUSED: Turn(_S.FAR, (_A.AGAIN,)),
    _E.ENDED: Turn(_S.FAR, (_A.AGAIN,)),
    _E.CHECKED: Turn(_S.FAR),  # told too late
    _E.BARRED: Turn(_S.FAR),
    _E.CLOSED: Turn(_S.CLOSED),
}
TABLE: Mapping[State, Mapping[Event, Turn]] = {
    _S.FAR: _AWAY,
    _S.CHECKING: {
        _E.OPENED: Turn(_S.CHECKING, (_A.HALT, _A.FORGET, _A.CHECK)),
        _E.RESUMED: Turn(_S.CHECKING, (_A.HALT, _A.CHECK)),
        _E.SUSPENDED: Turn(_S.SUSPENDED, (_A.HALT,)),
        _E.EXPIRED: Turn(_S.FAR, (_A.HALT, _A.FORGET)),
        _E.REFUSED: Turn(_S.FAR, (_A.HALT, _A.FORGET, _A.AGAIN)),
        _E.ENDED: Turn(_S.FAR, (_A.HALT, _A.FORGET, _A.AGAIN)),
        _E.CHECKED: Turn(_S.LIVE, (_A.SHOW,)),
        _E.BARRED: Turn(_S.CHECKING),  # it is being read already
        _E.CLOSED: Turn(_S.CLOSED, (_A.HALT,)),
    },
    _S.LIVE: {
        _E.OPENED: Turn(_S.CHECKING, (_A.HIDE, _A.FORGET, _A.CHECK)),
        _E.RESUMED: Turn(_S.CHECKING, (_A.HIDE, _A.CHECK)),
        _E.SUSPENDED: Turn(_S.SUSPENDED, (_A.HIDE,)),
        _E.EXPIRED: Turn(_S.FAR, (_A.HIDE, _A.FORGET)),
        _E.REFUSED: Turn(_S.FAR, (_A.HIDE, _A.FORGET, _A.AGAIN)),
        _E.ENDED: Turn(_S.FAR, (_A.HIDE, _A.FORGET, _A.AGAIN)),
        _E.CHECKED: Turn(_S.LIVE),
        _E.BARRED: Turn(_S.CHECKING, (_A.HIDE, _A.CHECK)),
        _E.CLOSED: Turn(_S.CLOSED, (_A.HIDE,)),
    },
    _S.SUSPENDED: {
        **_AWAY,
        _E.OPENED: Turn(_S.CHECKING, (_A.FORGET, _A.CHECK)),
        _E.SUSPENDED: Turn(_S.SUSPENDED),
        _E.EXPIRED: Turn(_S.FAR, (_A.FORGET,)),
        _E.REFUSED: Turn(_S.FAR, (_A.FORGET, _A.AGAIN)),
        _E.ENDED: Turn(_S.FAR, (_A.FORGET, _A.AGAIN)),
        _E.CHECKED: Turn(_S.SUSPENDED),
        _E.BARRED: Turn(_S.SUSPENDED),
    },
    _S.CLOSED: dict.fromkeys(Event, Turn(_S.CLOSED)),
}


def turn(state: State, event: Event) -> Turn:
    return TABLE[state][event]


def forgets_seen(away_s: float) -> bool:
    """Whether to call on servers as one who has seen nothing of them, `away_s` after the line broke.

    A server that has seen less than its caller refuses it without a word: a lagging one, whom that is meant for, and one
    that has lost its data, for ever. After LAG_S only the second is left. Our session is named all the same: who still
    has it goes on with it, the others say that it is over.
    """
    return away_s >= LAG_S


def arrival(known: str, session: str) -> Event:
    """A line came up with `session`; `known` is the one we had, "" when none can live."""
    return Event.RESUMED if known == session else Event.OPENED
