"""libmfq from Python, by ctypes alone: a queue of memory-mapped files.

    import mfq

    with mfq.Queue("orders.mfq") as queue:
        at = queue.append(b"42 apples")
        queue.flush(at.end, timeout=1.0)
        for record in queue.reader():
            print(record.offset, record.data)

The manual is mfq.h: a method does what the function of its name says there, and the constants are
the ones there, without MFQ_. A `timeout` is in seconds: 0 does not wait, None waits until Ctrl-C.
What fails raises MfqError, a timeout one that is a TimeoutError too; a number that does not fit
into its C type is an OverflowError. Everything may be called from any thread, and lets other
threads run meanwhile; a Reader is for one at a time, but for close(), which brings that one out.
"""

import ctypes
import math
import os
import time
import weakref
from collections import namedtuple
from ctypes import byref, c_int32, c_size_t, c_uint64, c_void_p
from types import SimpleNamespace

(OK, E_INVALID, E_TIMEOUT, E_END, E_NOT_FOUND, E_TOO_LARGE, E_NO_SPACE, E_NO_MEMORY, E_IO,
 E_CORRUPT, E_LOCKED, E_CLOSED, E_BUSY, E_READ_ONLY, E_VERSION, E_UNSUPPORTED, E_NOT_DURABLE,
 E_POISONED, E_PANIC, E_FORKED, E_REENTRANT) = range(0, -21, -1)
RECORD, RAW = FILLER_ZERO, FILLER_ROCKETMQ = MMAP, STAGED = COMMITTED, FLUSHED = range(2)
FLUSH_NONE, FLUSH_INTERVAL, FLUSH_LEAST_PAGES, FLUSH_EVERY_APPEND = range(4)
(OPEN_EXISTING, OPEN_READ_ONLY, OPEN_NO_WAIT, OPEN_ADOPT, OPEN_STRICT, OPEN_SALVAGE,
 OPEN_LOCK_POOL, OPEN_POOL_FAIL_FAST, OPEN_NETWORK) = (1 << bit for bit in range(9))
ENDED_CREATED, ENDED_CLEAN, ENDED_PROCESS_DEATH, ENDED_POWER_CUT, ENDED_ADOPTED = range(5)
ABI_VERSION = 1


class MfqError(OSError):
    """A call that failed: its `status` (E_...), the system's `errno` (0: none), and the library's
    `sentence`. After E_NOT_DURABLE the records are appended all the same; `spans` tells where."""

    def __init__(self, status, errno, sentence, spans=()):
        BaseException.__init__(self, status, errno, sentence, spans)  # OSError's mistakes them
        self.status, self.errno, self.strerror, self.spans = status, errno, sentence, spans
        self.sentence = sentence

    def __str__(self):
        return self.sentence


class MfqTimeoutError(MfqError, TimeoutError):
    """The time given was not enough."""


Span = namedtuple("Span", "offset end")
Record = namedtuple("Record", "offset end time_ms data")


def _struct(text):
    """A structure with fields as C has them, without the `_t`."""
    fields = []
    for kind, *names in (line.split() for line in text.split(";")):
        for name, _, count in (name.partition("*") for name in names):
            plain = getattr(ctypes, "c_" + kind)
            fields.append((name, plain * int(count) if count else plain))
    return type("_Struct", (ctypes.Structure,), {"_fields_": fields})


_Options = _struct(
    "size_t struct_size; uint64 file_size start_offset; uint32 format filler mode flush_policy;"
    "int32 flush_interval_ms; uint32 flush_least_pages; int32 append_timeout_ms;"
    "uint32 files_ahead pool_buffers; int32 commit_interval_ms; uint32 permissions flags;"
    "void_p walk walk_context")
_Offsets = _struct("size_t struct_size; uint64 min reserved wrote committed flushed")
_Recovery = _struct(
    "size_t struct_size; uint32 ended lost_stretches; uint64 cut_at cut_bytes verified_to"
    " unverified_bytes claims_passed_over record_beyond lost_bytes first_lost")
_Stats = _struct(
    "size_t struct_size; uint64 appends bytes rolls_ready rolls_waited rolls_timed_out"
    " files_created slow_creations failed_creations expired_requests superseded_requests"
    " self_served_creations open_claims oldest_claim_offset oldest_claim_age_ms prefaulted_to"
    " creation_us*24 pool_waits pool_refusals pool_free")
_Span = _struct("uint64 offset end")
_Slice = _struct("char_p ptr; size_t len")
_Claim = _struct("void_p ptr; size_t len; uint64 offset token*2")
_View = _struct("void_p ptr; size_t len; uint64 offset end; int64 time_ms; uint64 token*2")

_mfq = ctypes.CDLL("libmfq.so.0")
if _mfq.mfq_abi_version() != ABI_VERSION:
    raise ImportError(f"libmfq.so.0 has ABI {_mfq.mfq_abi_version()}, this is for {ABI_VERSION}")
_mfq.mfq_version.restype = ctypes.c_char_p
version = _mfq.mfq_version().decode()
walk_rocketmq = ctypes.cast(_mfq.mfq_walk_rocketmq, c_void_p).value  # for the option `walk`


# Nothing below hands a bare int to C: ctypes would take it for a C int, and cut it to one.
def _number(kind, value):
    number = kind(value)
    if (number.value or 0) != (value or 0):  # an address of 0 has None for its value
        raise OverflowError(f"{value} does not fit into {8 * ctypes.sizeof(kind)} bits")
    return number


def _bytes(data):
    return data if isinstance(data, bytes) else bytes(memoryview(data))


def _check(status):
    if status < 0:
        text = ctypes.create_string_buffer(512)
        _mfq.mfq_last_error(text, c_size_t(512))
        error = MfqTimeoutError if status == E_TIMEOUT else MfqError
        raise error(status, _mfq.mfq_last_errno(), text.value.decode(errors="replace"))


def _wait(timeout, call):
    """Makes a call that takes a timeout_ms; again and again, for no signal gets through in C."""
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
    try:
        _check(function(*arguments, spans))
    except MfqError as error:
        if error.status == E_NOT_DURABLE:
            error.spans = [Span(span.offset, span.end) for span in spans]
        raise
    return [Span(span.offset, span.end) for span in spans]


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
    """Queue(path, file_size=1 << 20, mode=mfq.STAGED, ...): options are those of mfq_options_t."""

    def __init__(self, path, **options):
        path, wanted, handle = os.fsencode(path), _Options(ctypes.sizeof(_Options)), c_void_p()
        if b"\0" in path:
            raise ValueError("path has a NUL in it")
        kinds = dict(_Options._fields_[1:])
        for name, value in options.items():
            if name not in kinds:
                raise TypeError(f"there is no option {name!r}")
            setattr(wanted, name, _number(kinds[name], value))
        _check(_mfq.mfq_open(path, byref(wanted), byref(handle)))
        self._opened(handle, _mfq.mfq_close)

    def append(self, data):
        """Appends a record, of anything that is like bytes; tells its Span."""
        data = _bytes(data)
        return _append(_mfq.mfq_append, self._handle, data, c_size_t(len(data)))[0]

    def append_batch(self, records):
        """Appends all of them or none; tells their Spans."""
        slices = [_Slice(data, len(data)) for data in map(_bytes, records)]
        count, slices = len(slices), (_Slice * len(slices))(*slices)
        return _append(_mfq.mfq_append_batch, self._handle, slices, c_size_t(count), count=count)

    def claim(self, size):
        """Takes the place of a record that is to be filled in, as a Claim."""
        return Claim(self, size)

    def view(self, offset):
        """Gives the record at or after `offset` in place: its `data` is a read-only memoryview,
        good after close() too; its file is held until `data` and every slice of it is gone."""
        view = _View()
        _check(_mfq.mfq_view(self._handle, _number(c_uint64, offset), byref(view)))
        array = (ctypes.c_uint8 * view.len).from_address(view.ptr)  # each slice keeps it
        weakref.finalize(array, _mfq.mfq_view_release, byref(view)).atexit = False
        data = memoryview(array).cast("B") if view.len else memoryview(b"")
        return Record(view.offset, view.end, view.time_ms, data.toreadonly())

    def read(self, offset):
        """Copies the record at or after `offset`."""
        view = self.view(offset)
        return view._replace(data=bytes(view.data))

    def reader(self, offset=None, timeout=0):
        """Gives a Reader from `offset` on, or from the first record on, whose loop waits up to
        `timeout` for each record."""
        return Reader(self, self.offsets().min if offset is None else offset, timeout)

    def flush(self, up_to=None, timeout=None):
        """Brings what lies below `up_to` to stable storage; None means all there is by now."""
        up_to = _number(c_uint64, self.offsets().reserved if up_to is None else up_to)
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
    """The records from an offset on, copied: those that are there, or with a timeout those that
    come, too; when none comes in time the loop ends in a TimeoutError."""

    def __init__(self, queue, offset, timeout):
        self._queue, self._timeout, handle = queue, timeout, c_void_p()
        _check(_mfq.mfq_reader_open(queue._handle, _number(c_uint64, offset), byref(handle)))
        self._opened(handle, _mfq.mfq_reader_close)

    def next(self, timeout=0):
        at = _View()
        _wait(timeout, lambda ms: _mfq.mfq_reader_next(self._handle, ms, byref(at)))
        # The reader's bytes are gone once another thread closes it; a view's are held.
        view = self._queue.view(at.offset)
        return Record(at.offset, at.end, at.time_ms, bytes(view.data[:at.len]))

    def seek(self, offset):
        _check(_mfq.mfq_reader_seek(self._handle, _number(c_uint64, offset)))

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.next(self._timeout)
        except MfqError as error:
            raise StopIteration if error.status == E_END else error from None


class Claim:
    """The place of a record, at `offset`. commit() makes what is in the bytearray `data` by then
    the record, and so does the end of its `with`, or aborts it on an exception; one that nothing
    refers to any more is aborted."""

    def __init__(self, queue, size):
        self._queue, self._claim = queue, _Claim()
        self._guard()  # before there is anything that could leak
        _check(_mfq.mfq_claim(queue._handle, _number(c_size_t, size), byref(self._claim)))
        self.offset, self.data = self._claim.offset, bytearray(self._claim.len)

    def _guard(self):
        self._net = weakref.finalize(self, _mfq.mfq_abort, byref(self._claim))
        self._net.atexit = False

    def _mine(self):
        """The claim, for the one thread that ends it; for others one that has ended already."""
        return self._claim if self._net.detach() else _Claim(token=(self._claim.token[0], 0))

    def commit(self, size=None):
        """Makes the first `size` bytes of `data` the record, or all; tells its Span."""
        data = bytes(self.data)
        size = _number(c_size_t, len(data) if size is None else size)
        claim = self._mine()
        asked = _mfq.mfq_wait(self._queue._handle, c_int32(COMMITTED), c_uint64(0), c_int32(0))
        if asked != E_FORKED:  # a forked child has nothing to do with that memory
            ctypes.memmove(claim.ptr, data, min(len(data), claim.len))
        try:
            return _append(_mfq.mfq_commit, byref(claim), size)[0]
        except MfqError as error:
            if claim is self._claim and error.status not in (E_CLOSED, E_IO, E_NOT_DURABLE):
                self._guard()  # it is still open
            raise

    def abort(self):
        _check(_mfq.mfq_abort(byref(self._mine())))

    def __enter__(self):
        return self

    def __exit__(self, kind, *raised):
        try:
            if self._net.alive and not kind:
                self.commit()
        finally:
            self._net()  # aborts it if it is still open
