"""`python -m benchmarks.cold CONTENDER DEVICE THREADS OPTIONS`: training from nothing.

For `starts`. Prints a line of JSON when the accuracy is known, and then one for each time that it
trains again.
"""

from __future__ import annotations

import json
import os
import sys
import time

BEGIN = time.perf_counter()


def main() -> None:
    """Import, load, compile, train, evaluate; and train and evaluate again, twice."""
    name, device, threads, options_json = sys.argv[1:]
    # Chatter of libraries goes elsewhere, so that every line on stdout is ours.
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from threadpoolctl import threadpool_limits

    from benchmarks.contenders import select
    from benchmarks.task import Task, accuracy
    from scratchnet import mnist
    from scratchnet.training import Options

    (entry,) = select(name)
    contender = entry.load()
    data = mnist.load()
    imported = time.perf_counter() - BEGIN
    task = Task.of(Options(**json.loads(options_json)), device, data.train)
    with threadpool_limits(int(threads)):
        contender.prepare(task, int(threads))
        for warm in (False, True, True):
            contender.reset()
            begin = time.perf_counter()
            for epoch in range(task.options.epochs):
                contender.epoch(epoch)
            reached = accuracy(contender.collect().parameters, data.validation, task.normalization)
            seconds = time.perf_counter() - begin
            line = {"accuracy": reached, "seconds": seconds, "imported": imported, "warm": warm}
            print(json.dumps(line | {"about": contender.about()}), file=lines, flush=True)


if __name__ == "__main__":
    main()
