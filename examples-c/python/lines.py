"""Appends the lines of a file to a queue, makes them durable, and reads them back."""
import sys
import tempfile

import mfq

with open(sys.argv[1], "rb") as file, tempfile.TemporaryDirectory() as scratch:
    lines = file.read().splitlines()
    with mfq.Queue(f"{scratch}/queue", file_size=1 << 20) as queue:
        spans = [queue.append(line) for line in lines]
        queue.flush(timeout=10)
        assert [record.data for record in queue.reader()] == lines
        print(f"{len(spans)} lines came back; durable up to {queue.offsets().flushed}, {queue.stats().bytes} bytes")
