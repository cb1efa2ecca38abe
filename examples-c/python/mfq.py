"""libmfq from Python, by ctypes alone: a queue of memory-mapped files.

    import mfq

    with mfq.Queue("orders.mfq") as queue:
        at = queue.append(b"42 apples")
        queue.flush(at.end, timeout=1.0)
        for record in queue.reader():
            print(record.offset, record.data)

The manual is mfq.h: a method does what the function of its name says there, and the constants are the ones there,
without MFQ_. A `timeout` is in seconds: 0 does not wait, None waits until Ctrl-C. What fails raises MfqError, a
timeout one that is a TimeoutError too; a number that does not fit into its C type is an OverflowError. Everything may
be called from any thread, and lets other threads run meanwhile.
"""

import ctypes
import math
import os
import threading
import time
import weakref
from collections import namedtuple
from ctypes import byref, c_char_p, c_int32, c_size_t, c_uint64, c_void_p
from types import SimpleNamespace

(OK, E_INVALID, E_TIMEOUT, E_END, E_NOT_FOUND, E_TOO_LARGE, E_NO_SPACE, E_NO_MEMORY, E_IO, E_CORRUPT, E_LOCKED,
 E_CLOSED, E_BUSY, E_READ_ONLY, E_VERSION, E_UNSUPPORTED, E_NOT_DURABLE, E_POISONED, E_PANIC, E_FORKED,
 E_REENTRANT) = range(0, -21, -1)
RECORD, RAW = range(2)
FILLER_ZERO, FILLER_ROCKETMQ = range(2)
MMAP, STAGED = range(2)
FLUSH_NONE, FLUSH_INTERVAL, FLUSH_LEAST_PAGES, FLUSH_EVERY_APPEND = range(4)
(OPEN_EXISTING, OPEN_READ_ONLY, OPEN_NO_WAIT, OPEN_ADOPT, OPEN_STRICT, OPEN_SALVAGE, OPEN_LOCK_POOL,
 OPEN_POOL_FAIL_FAST, OPEN_NETWORK) = (1 << bit for bit in range(9))
COMMITTED, FLUSHED = range(2)
ENDED_CREATED, ENDED_CLEAN, ENDED_PROCESS_DEATH, ENDED_POWER_CUT, ENDED_ADOPTED = range(5)
ABI_VERSION = 1


class MfqError(OSError):
    """A call that failed: its `status` (E_...), the system's `errno` (0: none), and the library's `sentence`. After
    E_NOT_DURABLE the records are appended all the same, and `spans` tells where."""

    def __init__(self, status, errno, sentence, spans=()):
        BaseException.__init__(self, status, errno, sentence, spans)  # OSError's takes its arguments for others
        self.status, self.errno, self.strerror, self.sentence, self.spans = status, errno, sentence, sentence, spans

    def __str__(self):
        return self.sentence


class MfqTimeoutError(MfqError, TimeoutError):
    """The time given was not enough."""


Span = namedtuple("Span", "offset end")
Record = namedtuple("Record", "offset end time_ms data")


def _fields(text):
    """Fields as C has them, without the `_t`."""
    lines = (line.split() for line in text.split(";"))
    return [(name, getattr(ctypes, "c_" + kind)) for kind, *names in lines for name in names]


class _Options(ctypes.Structure):
    _fields_ = _fields("size_t struct_size; uint64 file_size start_offset; uint32 format filler mode flush_policy;"
                       "int32 flush_interval_ms; uint32 flush_least_pages; int32 append_timeout_ms;"
                       "uint32 files_ahead pool_buffers; int32 commit_interval_ms; uint32 permissions flags;"
                       "void_p walk walk_context")


class _Offsets(ctypes.Structure):
    _fields_ = _fields("size_t struct_size; uint64 min reserved wrote committed flushed")


class _Recovery(ctypes.Structure):
    _fields_ = _fields("size_t struct_size; uint32 ended lost_stretches; uint64 cut_at cut_bytes verified_to"
                       " unverified_bytes claims_passed_over record_beyond lost_bytes first_lost")


class _Stats(ctypes.Structure):
    _fields_ = _fields("size_t struct_size; uint64 appends bytes rolls_ready rolls_waited rolls_timed_out files_created"
                       " slow_creations failed_creations expired_requests superseded_requests self_served_creations"
                       " open_claims oldest_claim_offset oldest_claim_age_ms prefaulted_to")
    _fields_ += [("creation_us", c_uint64 * 24)] + _fields("uint64 pool_waits pool_refusals pool_free")


class _Span(ctypes.Structure):
    _fields_ = _fields("uint64 offset end")


class _Slice(ctypes.Structure):
    _fields_ = _fields("char_p ptr; size_t len")


class _Claim(ctypes.Structure):
    _fields_ = _fields("void_p ptr; size_t len; uint64 offset") + [("token", c_uint64 * 2)]


class _View(ctypes.Structure):
    _fields_ = _fields("void_p ptr; size_t len; uint64 offset end; int64 time_ms") + [("token", c_uint64 * 2)]


_mfq = ctypes.CDLL("libmfq.so.0")
if _mfq.mfq_abi_version() != ABI_VERSION:
    raise ImportError(f"libmfq.so.0 has ABI {_mfq.mfq_abi_version()}, this module is for {ABI_VERSION}")
_mfq.mfq_version.restype = c_char_p
version = _mfq.mfq_version().decode()
walk_rocketmq = ctypes.cast(_mfq.mfq_walk_rocketmq, c_void_p).value  # for the option `walk`, an address


# Nothing below hands a bare int to C: ctypes would take it for a C int, and cut it to one.
def _number(kind, value):
    number = kind(value)
    if number.value != value:
        raise OverflowError(f"{value} does not fit into {8 * ctypes.sizeof(kind)} bits")
    return number


def _bytes(data):
    return data if isinstance(data, bytes) else bytes(memoryview(data))


def _check(status, spans=()):
    if status < 0:
        text = ctypes.create_string_buffer(512)
        _mfq.mfq_last_error(text, c_size_t(512))
        error = MfqTimeoutError if status == E_TIMEOUT else MfqError
        spans = spans if status == E_NOT_DURABLE else ()
        raise error(status, _mfq.mfq_last_errno(), text.value.decode(errors="replace"), spans)


def _wait(timeout, call):
    """Makes a call that takes a timeout_ms; again and again, as no signal of Python gets through while C waits."""
    if timeout is not None and not timeout >= 0:
        raise ValueError("timeout must not be negative")
    left = math.inf if timeout is None else timeout
    deadline = time.monotonic() + left
    while True:
        status = call(c_int32(math.ceil(1000 * min(left, 0.1))))
        left = deadline - time.monotonic()
        if status != E_TIMEOUT or left <= 0:
            return _check(status)


def _append(function, *arguments, count=1):
    spans = (_Span * count)()
    status = function(*arguments, spans)
    spans = [Span(span.offset, span.end) for span in spans]
    _check(status, spans)
    return spans


def _array(lent):
    return (ctypes.c_uint8 * lent.len).from_address(lent.ptr)


def _memory(array, end, lent):
    """A memoryview of what the library has lent. Each slice of it keeps the array, whose end gives the memory back."""
    net = weakref.finalize(array, end, byref(lent))
    net.atexit = False
    return net, memoryview(array).cast("B") if len(array) else memoryview(bytearray())


class _Closing:
    """What ends with its `with`, by close(), or when nothing refers to it any more."""

    def _opened(self, handle, close):
        self._handle, self._close, self._net = handle, close, weakref.finalize(self, close, handle)

    def close(self):
        if self._net.detach():
            _check(self._close(self._handle))

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.close()


class Queue(_Closing):
    """Queue(path, file_size=1 << 20, flush_policy=mfq.FLUSH_INTERVAL, ...): the options are those of mfq_options_t."""

    def __init__(self, path, **options):
        path, wanted, kinds = os.fsencode(path), _Options(ctypes.sizeof(_Options)), dict(_Options._fields_)
        if b"\0" in path:
            raise ValueError("path has a NUL in it")
        for name, value in options.items():
            if name not in kinds:
                raise TypeError(f"there is no option {name!r}")
            setattr(wanted, name, _number(kinds[name], value))
        handle = c_void_p()
        _check(_mfq.mfq_open(path, byref(wanted), byref(handle)))
        self._opened(handle, _mfq.mfq_close)

    def append(self, data):
        """Appends a record, of anything that is like bytes; tells its Span."""
        data = _bytes(data)
        return _append(_mfq.mfq_append, self._handle, data, c_size_t(len(data)))[0]

    def append_batch(self, records):
        """Appends all of them or none; tells their Spans."""
        slices = [_Slice(data, len(data)) for data in map(_bytes, records)]
        count = len(slices)
        return _append(_mfq.mfq_append_batch, self._handle, (_Slice * count)(*slices), c_size_t(count), count=count)

    def claim(self, size):
        """Gives memory to write a record into, as a Claim."""
        return Claim(self, size)

    def view(self, offset):
        """Gives the record at or after `offset` in place: its `data` is a read-only memoryview, good after close() too,
        and its file is held until `data` and every slice of it is released or gone."""
        view = _View()
        _check(_mfq.mfq_view(self._handle, _number(c_uint64, offset), byref(view)))
        data = _memory(_array(view), _mfq.mfq_view_release, view)[1]
        return Record(view.offset, view.end, view.time_ms, data.toreadonly())

    def read(self, offset):
        """Copies the record at or after `offset`."""
        view = self.view(offset)
        return view._replace(data=bytes(view.data))

    def reader(self, offset=None, timeout=0):
        """Gives a Reader from `offset` on, or from the first record on; it waits up to `timeout` for each record."""
        return Reader(self, self.offsets().min if offset is None else offset, timeout)

    def flush(self, up_to=None, timeout=None):
        """Brings what lies below `up_to` to stable storage; None means all there is."""
        up_to = _number(c_uint64, (1 << 64) - 1 if up_to is None else up_to)
        _wait(timeout, lambda timeout_ms: _mfq.mfq_flush(self._handle, up_to, timeout_ms))

    def wait(self, which, offset, timeout=None):
        which, offset = _number(c_int32, which), _number(c_uint64, offset)
        _wait(timeout, lambda timeout_ms: _mfq.mfq_wait(self._handle, which, offset, timeout_ms))

    def truncate_after(self, offset):
        _check(_mfq.mfq_truncate_after(self._handle, _number(c_uint64, offset)))

    def truncate_before(self, offset):
        _check(_mfq.mfq_truncate_before(self._handle, _number(c_uint64, offset)))

    def _tell(self, function, kind):
        told = kind(ctypes.sizeof(kind))
        _check(function(self._handle, byref(told)))
        return SimpleNamespace(**{name: getattr(told, name) for name, _ in kind._fields_[1:]})

    def offsets(self):
        return self._tell(_mfq.mfq_offsets, _Offsets)

    def recovery(self):
        return self._tell(_mfq.mfq_recovery, _Recovery)

    def stats(self):
        stats = self._tell(_mfq.mfq_stats, _Stats)
        stats.creation_us = list(stats.creation_us)
        return stats


class Reader(_Closing):
    """The records from an offset on, copied: those that are there, or with a timeout those that come, too; when none
    comes in time the loop ends in a TimeoutError. Threads that share it take turns, close() included; Queue.close()
    brings out who waits.
    """

    def __init__(self, queue, offset, timeout):
        handle = c_void_p()
        _check(_mfq.mfq_reader_open(queue._handle, _number(c_uint64, offset), byref(handle)))
        self._queue, self._timeout, self._inside = queue, timeout, threading.Lock()
        self._opened(handle, _mfq.mfq_reader_close)

    def next(self, timeout=0):
        view = _View()
        with self._inside:  # the bytes are there until the next call with this reader, its close included
            _wait(timeout, lambda timeout_ms: _mfq.mfq_reader_next(self._handle, timeout_ms, byref(view)))
            return Record(view.offset, view.end, view.time_ms, ctypes.string_at(view.ptr, view.len))

    def seek(self, offset):
        with self._inside:
            _check(_mfq.mfq_reader_seek(self._handle, _number(c_uint64, offset)))

    def close(self):
        with self._inside:
            super().close()

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.next(self._timeout)
        except MfqError as error:
            if error.status != E_END:
                raise
        raise StopIteration


class Claim:
    """A record to be written into the memoryview `data`, that will lie at `offset`. Its `with` commits it, or aborts it
    on an exception; one that nothing refers to any more is aborted. While a slice of `data` is left, or something else
    made of it, commit and abort are a BufferError, as mmap.close would be.
    """

    def __init__(self, queue, size):
        self._queue, self._claim, self._ending = queue, _Claim(), threading.Lock()
        _check(_mfq.mfq_claim(queue._handle, _number(c_size_t, size), byref(self._claim)))
        self.offset = self._claim.offset
        self._lend(_array(self._claim))

    def _lend(self, array):
        self._array, self._net, self.data = array, *_memory(array, _mfq.mfq_abort, self._claim)

    def _take_back(self):
        self.data.release()
        if self._net.detach():
            array, self._array = weakref.ref(self._array), None
            if array() is not None:
                self._lend(array())
                raise BufferError("a slice of the claim's memory, or something else made of it, is still there")

    def commit(self, size=None):
        """Makes the first `size` bytes a record, or all of them; tells its Span. After a failure that leaves the claim
        open `data` is a new memoryview."""
        size = _number(c_size_t, self._claim.len if size is None else size)
        with self._ending:
            self._take_back()
            try:
                return _append(_mfq.mfq_commit, byref(self._claim), size)[0]
            except MfqError as error:
                if error.status not in (E_CLOSED, E_IO, E_NOT_DURABLE):
                    self._lend(_array(self._claim))
                raise

    def abort(self):
        with self._ending:
            self._take_back()
            _check(_mfq.mfq_abort(byref(self._claim)))

    def __enter__(self):
        return self

    def __exit__(self, kind, *raised):
        if self._net.alive:
            self.abort() if kind else self.commit()
