"""How often HAProxy is reloaded and asked."""

RELOAD_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
LEFTOVER_S = 6.0  # removed services come several at a time: one reload gives up all of their ports
LEFTOVER_LOOK_S = 1.0  # each looks at every backend
DEAF_S = 10.0  # a reload takes HAProxy's master less
POLL_S = 0.05
LONGEST_POLL_S = 0.5
MOVING_S = 2.0
"""So long, as it were, drains have lasted of which some move on: a look each 100 ms."""
MOST_REST_S = 0.02
PRESSED_S = 0.05  # changes that are closer than this come without end
SAVE_PAUSE_S = 1.0
LONGEST_SAVE_PAUSE_S = 10.0


def reload_pause_s(old_workers: int) -> float:
    """Between two reloads: longer while old workers pile up (each keeps its memory until its last session ends)."""
    return min(LONGEST_PAUSE_S, RELOAD_PAUSE_S * 1.5**old_workers)


def rest_s(took_s: float) -> float:
    """After a turn that took in a change, when the next ones press: they are taken together, and most of a core is left."""
    return min(MOST_REST_S, 2 * took_s)


def save_pause_s(took_s: float) -> float:
    """Between two writings of what is served now, for a fresh start: a file of thousands of backends takes its time, and
    what has happened since stands in the journal and in the registry.
    """
    return min(LONGEST_SAVE_PAUSE_S, max(SAVE_PAUSE_S, 100 * took_s))


def poll_s(draining_s: float) -> float:
    """Between two looks at draining servers: most drains end in milliseconds, long downloads in minutes.

    `draining_s`: since when they drain, or (see `since_s`) none of them got any further.
    """
    return min(LONGEST_POLL_S, max(POLL_S, draining_s / 20))


def since_s(before_s: float, *, now_s: float) -> float:
    """From when on drains are counted as long ones, after a look at which one of them got further.

    Where endpoints change without end something drains all the time: counted from the first of them, slots would come
    out of quarantine ever later, and pools would grow, by reloads, that are large enough.
    """
    return max(before_s, now_s - MOVING_S)
