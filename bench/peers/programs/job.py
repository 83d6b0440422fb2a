"""What the Python programs share: the job, a limit of time, and the closing line."""

import json
import resource
import sys
import time
from pathlib import Path


class Job:
    """One job. `tokens` are those to send to, `info` is what the simulator says about itself."""

    def __init__(self) -> None:
        job = json.loads(Path(sys.argv[1]).read_text())
        self.info = job["info"]
        self.url = self.info["url"]
        self.ca_file = self.info["ca_file"]
        self.broker_url = job["broker_url"]
        self.title, self.body, self.data = job["title"], job["body"], job["data"]
        self.tokens = Path(job["tokens_file"]).read_text().split()
        self._seconds = job["seconds"]

    def begin(self) -> None:
        """Start the clocks: connections are open and credentials exchanged."""
        self._began = time.perf_counter()
        self._spent = _cpu_seconds()

    def is_over(self) -> bool:
        """Tell whether the time is up; what is in flight may still end."""
        return time.perf_counter() - self._began > self._seconds

    def batches(self, size):
        """Yield the tokens by batches until they or the time end."""
        for start in range(0, len(self.tokens), size):
            if self.is_over():
                return
            yield self.tokens[start : start + size]

    def end(self, accepted) -> None:
        """Stop the clocks and say what was reached."""
        seconds = time.perf_counter() - self._began
        print(
            json.dumps(
                {"accepted": accepted, "seconds": seconds, "cpu_seconds": _cpu_seconds() - self._spent}
            )
        )


def _cpu_seconds():
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime
