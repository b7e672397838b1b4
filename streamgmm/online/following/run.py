"""Look at a feed again and again, and learn what is new."""

from __future__ import annotations

import signal

from streamgmm.errors import StreamGMMError
from streamgmm.online.following.base import Feed
from streamgmm.online.following.session import Session
from streamgmm.online.following.stop import Stop


def run(feed: Feed, session: Session, stop: Stop, *, once: bool, interval: float) -> None:
    """Learn what is there, then what comes, with `interval` seconds from one look to the next.

    Returns when a feed that is not endless has ended, on SIGTERM, and where `once` is set when
    all that is there has been learned. What has been learned is saved in any case.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C.
    StreamGMMError
        If rows cannot be read or learned.
    """
    position = session.followed.position
    if position is not None:
        feed.check(position)
    try:
        while not stop.asked:
            _finish_fit(session, stop)  # that a stop has interrupted
            for unit in stop.each(feed.units(session.followed.position)):
                session.learn(unit, feed.name)
                _finish_fit(session, stop)
            session.save()
            if once or not feed.endless:
                break
            stop.wait(interval)
    except StreamGMMError:
        session.save()
        raise
    if stop.asked == signal.SIGINT:
        raise KeyboardInterrupt


def _finish_fit(session: Session, stop: Stop) -> None:
    """Continue a warm-up's fit until it is over, or the follower is to stop.

    No rows are read meanwhile. So which rows wait for the fit never depends on a stop.
    """
    while session.busy and not stop.asked:
        session.go_on()
