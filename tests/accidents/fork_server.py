"""Runs commands of razorlight, each in a fork of a process that has imported it, and kills them.

Reads a job a line, JSON: ``arguments`` of the command line, the ``folder`` to run in and, to be
killed, one of

* ``seconds``: after which a SIGKILL comes;
* ``operation``: which of its writing operations on files below ``runs/`` (to open, rename or remove
  one, or make a folder) brings a SIGKILL in place of itself;
* ``operation`` and ``bytes``: from which of them on a write beyond that many bytes of a file is cut
  short there by a fatal signal of the kernel;
* ``operation`` and ``interrupts``: from which of them on so many bring a SIGINT, as Ctrl-C does,
  or another ``signal``.

Answers each by a line: the exit status, or minus the signal.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from razorlight.cli import main, training  # noqa: F401  # importing takes longer than to run

WRITING = os.O_WRONLY | os.O_RDWR


def serve():
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            run(job)
        if "seconds" in job:
            time.sleep(job["seconds"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(job):
    os.chdir(job["folder"])
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["razorlight"]
    # who began in the background was told to ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "operation" in job:
        interrupts, sent = job.get("interrupts"), job.get("signal", signal.SIGINT)
        at_operation(job["operation"], job.get("bytes"), interrupts, sent)
    try:
        os._exit(main(job["arguments"]))
    finally:
        os._exit(99)


def at_operation(number, size, interrupts, sent):
    count = 0

    def hook(event, arguments):
        nonlocal count
        if writes(event, arguments) and "runs" in Path(os.fsdecode(arguments[0])).parts:
            count += 1
            if interrupts and number <= count < number + interrupts:
                os.kill(os.getpid(), sent)
            elif count == number and size:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            elif count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def writes(event, arguments):
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str | bytes) and bool(flags & WRITING)
    return event in ("os.rename", "os.remove", "os.mkdir", "os.truncate")


if __name__ == "__main__":
    serve()
