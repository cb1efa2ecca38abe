"""Loads libmfq, finds every function, lives the short life of a queue through mfq.py, and unloads it, again and again,
beside threads that have used it and end later. Arguments: a directory to work in, how often, and the names of all
functions.
"""

import ctypes
import importlib
import sys
import threading

import mfq

directory, cycles, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
libc = ctypes.CDLL(None)
libc.dlclose.argtypes = [ctypes.c_void_p]


def use(module, used, unloaded):
    """A thread that leaves a sentence of the library in a thread-local, and ends when the library is unloaded."""
    try:
        module.Queue("")
    except module.MfqError as error:
        assert error.status == module.E_INVALID and "path" in error.sentence
        used.release()
    unloaded.wait()


def live(module):
    with module.Queue(directory, file_size=65536) as queue:
        at = queue.append(b"appended")
        with queue.claim(7) as claim:
            claim.data[:] = b"claimed"
        assert [record.data for record in queue.reader(at.offset)] == [b"appended", b"claimed"]
        assert queue.view(claim.offset).data == b"claimed"
        queue.flush(timeout=60)
        assert queue.offsets().flushed > claim.offset


over, used = threading.Event(), threading.Semaphore(0)
longest = threading.Thread(target=use, args=(mfq, used, over))
longest.start()
assert used.acquire(timeout=60)
for cycle in range(cycles):
    importlib.reload(mfq)  # loads it once more, and checks the ABI
    functions = [getattr(mfq._mfq, name) for name in names]  # an AttributeError where dlsym finds nothing
    unloaded = threading.Event()
    threads = [threading.Thread(target=use, args=(mfq, used, unloaded)) for _ in range(2)]
    for thread in threads:
        thread.start()
    live(mfq)
    assert all(used.acquire(timeout=60) for _ in threads)
    assert libc.dlclose(mfq._mfq._handle) == 0
    unloaded.set()
    for thread in threads:
        thread.join()
over.set()
longest.join()
print(f"{cycles} cycles, {len(names)} functions")
