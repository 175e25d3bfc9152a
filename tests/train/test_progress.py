import pytest
from headstudio.train.progress import Clock, Progress, TerminalReporter


def test_remaining_time_follows_the_steps_and_forgives_a_slow_one():
    clock = Clock()
    assert clock.remaining(0.5, 100) == 50
    for left in range(99, 60, -1):
        assert clock.remaining(0.5, left) == pytest.approx(0.5 * left)
    slow = clock.remaining(5.0, 60)  # a checkpoint: ten times a step's time
    assert 30 < slow < 45
    for left in range(59, 0, -1):
        last = clock.remaining(1.0, left)
    assert last == pytest.approx(1.0, rel=0.06)


def test_terminal_bar_starts_where_a_continued_run_goes_on(capsys):
    with TerminalReporter("orc") as reporter:
        for step in (8, 9, 10):
            reporter.progress(Progress(step, 10, {"distil": 0.5}, 300, 1.0, 1.0))
        reporter.warning("careful")
    captured = capsys.readouterr()
    assert "10/10" in captured.err
    assert "distil=0.5" in captured.err
    assert "orc" in captured.err
    assert "careful" in captured.err
    assert not reporter.should_stop()
