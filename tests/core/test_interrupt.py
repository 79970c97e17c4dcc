"""Stopping by a signal: asked for once, and insisted on."""

import signal
import threading

import pytest

from rl_interp.core.interrupt import graceful_stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def test_the_tests_themselves_can_be_interrupted_however_a_shell_started_them():
    """`nohup make test &` in a script ignores SIGINT, and so would every command that these tests interrupt."""
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_first_signal_asks_for_a_stop_and_a_second_insists(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), graceful_stop() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert stop.signal == number
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_outside_the_main_thread_no_stop_is_asked_for():
    seen = []

    def work():
        with graceful_stop() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_an_ignored_signal_stays_ignored():
    """A shell ignores SIGINT in what it runs in the background, so that Ctrl-C stops the foreground alone."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with graceful_stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop
            signal.raise_signal(signal.SIGTERM)
            assert stop
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
