"""Luigi tasks, thin: parameters, what is required, and one call of a function that knows nothing of Luigi."""

import luigi

from pipeline.logs import set_up_logs


def _set_up_logs(task: luigi.Task) -> None:
    """With several workers a task runs in a process of its own, which knows nothing of its parent's logging."""
    if type(task).__module__.startswith(__name__):
        set_up_logs()


luigi.Task.event_handler(luigi.Event.START)(_set_up_logs)
