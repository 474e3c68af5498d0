"""What is unconfirmed is never forgotten; acknowledgements cover what was answered and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from fairlead_messaging.decisions.messages import Limits
from fairlead_messaging.decisions.window import Acks, Window


def filled(count: int) -> Window[int]:
    window: Window[int] = Window(Limits())
    for number in range(count):
        window.accept(number, 1)
    return window


def send_all(window: Window[int]) -> list[int]:
    sent = []
    while (item := window.send()) is not None:
        sent.append(item)
    return sent


def test_a_lost_session_sends_again_in_order():
    """What was confirmed is not; tags begin at 1."""
    window = filled(5)
    send_all(window)
    confirmed = window.settle(2, multiple=True) + window.settle(4, multiple=False)
    window.lost(suspicious=False)

    assert [0, 1, 3] == confirmed
    assert [2, 4] == send_all(window)
    assert [2] == window.settle(1, multiple=False)


def test_the_message_over_which_a_channel_closes_is_found():
    """All are sent again one at a time; the one in flight when it closes again is the bad one."""
    window, bad, culprits, confirmed = filled(6), {1, 4}, [], []
    for _ in range(100):
        item = window.send()
        if item is None:
            break
        if not window.careful:
            send_all(window)
            window.lost(suspicious=True)
        elif item in bad:
            culprits.append(window.lost(suspicious=True))
        else:
            confirmed += window.settle(next(iter(window._sent)), multiple=False)

    assert ([1, 4], [0, 2, 3, 5]) == (culprits, confirmed)
    assert 0 == len(window)


def test_one_that_was_not_sent_after_all_takes_no_tag():
    """The broker counts what it got."""
    window = filled(2)
    window.send()
    assert 0 == window.withdraw()
    window.send()

    assert [1] == window.settle(1, multiple=False)


def test_it_is_full_by_count_or_by_size():
    """Few large messages fill it as many small ones do."""
    many: Window[int] = Window(Limits(messages=2, size_bytes=100))
    many.accept(1, 1)
    before = many.full
    many.accept(2, 1)
    large: Window[int] = Window(Limits(messages=2, size_bytes=100))
    large.accept(1, 100)

    assert (False, True, True) == (before, many.full, large.full)


@given(
    st.lists(
        st.one_of(st.just("accept"), st.just("send"), st.just("lost"), st.tuples(st.integers(1, 5), st.booleans()))
    )
)
def test_nothing_is_forgotten_or_settled_twice(events: list):
    """Each accepted item is settled once or still in the window, whatever happens; sizes add up."""
    window: Window[int] = Window(Limits())
    accepted, settled = 0, []
    for event in events:
        if event == "accept":
            window.accept(accepted, 3)
            accepted += 1
        elif event == "send":
            window.send()
        elif event == "lost":
            window.lost(suspicious=False)
        else:
            settled += window.settle(event[0], multiple=event[1])

    assert list(range(accepted)) == sorted([*settled, *window.unsettled()])
    assert 3 * len(window) == window._size_bytes


@given(st.permutations(range(1, 9)), st.sets(st.integers(1, 8)), st.sets(st.integers(0, 8)))
def test_acks_cover_exactly_what_was_acknowledged(order: list[int], rejected: set[int], flush_after: set[int]):
    """However answers come and frames are cut: each acknowledged tag is covered, none that is open or rejected is named."""
    acks, covered, answered = Acks(), set(), set()
    for number, tag in enumerate(order):
        (acks.rejected if tag in rejected else acks.acknowledge)(tag)
        answered.add(tag)
        if number in flush_after or number == 7:
            for upto, multiple in acks.flush():
                assert upto not in rejected
                batch = set(range(1, upto + 1)) if multiple else {upto}
                assert batch <= answered
                covered |= batch - rejected

    assert set(range(1, 9)) - rejected == covered
