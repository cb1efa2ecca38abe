"""What a Python program relies on in mfq.py. The lines of this project are the data."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unittest
import warnings
from itertools import islice
from pathlib import Path
from unittest import mock

import mfq

ROOT = Path(__file__).parent.parent.parent
LINES = [line for name in ("README.md", "include/mfq.h") for line in (ROOT / name).read_bytes().splitlines()]
PAGE = os.sysconf("SC_PAGESIZE")
LONG = 60  # seconds; never waited for unless something is wrong


class Case(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = Path(scratch.name) / "queue"

    def open(self, **options):
        queue = mfq.Queue(self.path, **{"file_size": 16 * PAGE, **options})
        self.addCleanup(queue.close)
        return queue

    def fails(self, status, words, call, *arguments, **options):
        """The call is an MfqError of this status, whose sentence has the words; gives it."""
        with self.assertRaises(mfq.MfqError) as raised:
            call(*arguments, **options)
        error = raised.exception
        self.assertEqual(error.status, status, error)
        self.assertIn(words, error.sentence)
        self.assertEqual(str(error), error.sentence)
        self.assertEqual(isinstance(error, TimeoutError), status == mfq.E_TIMEOUT)
        return error

    def start(self, program):
        """A process of its own that runs this, with mfq imported and its path in sys.argv[1]."""
        command = [sys.executable, "-c", f"import mfq, sys; {program}", self.path]
        host = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for cleanup in host.stdin.close, host.stdout.close, host.wait, host.kill:  # the last one first
            self.addCleanup(cleanup)
        return host

    def until_it_sleeps(self, process, thread, is_inside=lambda: True):
        """Returns when this thread of this process is asleep, inside the call that it is meant to wait in."""
        deadline = time.monotonic() + LONG
        stat = Path(f"/proc/{process}/task/{thread}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "S" or not is_inside():
            self.assertLess(time.monotonic(), deadline)

    def waiting(self, *calls):
        """Threads that each wait in a call, and where there will be what they came out with."""
        came_out = []

        def wait(call, *arguments):
            try:
                came_out.append(call(*arguments))
            except mfq.MfqError as error:
                came_out.append(error.status)

        threads = [threading.Thread(target=wait, args=call, daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            # A thread may sleep for want of Python's lock, too: but not in the function that calls C.
            is_inside = lambda: sys._current_frames()[thread.ident].f_code.co_name == "<lambda>"
            self.until_it_sleeps(os.getpid(), thread.native_id, is_inside)
        return threads, came_out

    def come_out(self, threads):
        for thread in threads:
            thread.join(LONG)
            self.assertFalse(thread.is_alive())

    def is_mapped(self):
        return str(self.path) in Path("/proc/self/maps").read_text()


class Records(Case):
    def test_lines_come_back_in_order_in_both_modes(self):
        for mode in mfq.MMAP, mfq.STAGED:
            queue = self.open(mode=mode)
            start = queue.offsets().reserved
            spans = [queue.append(line) for line in LINES]
            queue.wait(mfq.COMMITTED, spans[-1].end, timeout=LONG)
            records = list(queue.reader(start))
            self.assertEqual([record.data for record in records], LINES)
            self.assertEqual([record[:2] for record in records], spans)
            self.assertEqual(queue.read(spans[7].offset), records[7])
            self.assertGreater(records[0].time_ms, 1_600_000_000_000)
            self.assertEqual(queue.stats().appends, len(LINES))
            queue.close()

    def test_a_raw_queue_is_the_bytes_themselves(self):
        queue = self.open(format=mfq.RAW)
        for line in LINES[:100]:
            queue.append(line or b"\n")
        wanted = b"".join(line or b"\n" for line in LINES[:100])
        self.assertEqual(queue.read(0).data, wanted)
        self.assertEqual(next(queue.reader(100)).data, wanted[100:])
        queue.close()
        self.assertTrue((self.path / f"{0:020}").read_bytes().startswith(wanted))

    def test_whatever_is_like_bytes_can_be_appended(self):
        queue = self.open()
        for data in (b"a\0b", bytearray(b"a\0b"), memoryview(b"xa\0bx")[1:4], memoryview(b"a-\0-b-")[::2]):
            self.assertEqual(queue.read(queue.append(data).offset).data, b"a\0b")
        self.assertEqual(queue.read(queue.append(b"").offset).data, b"")
        self.assertIsInstance(queue.read(0).data, bytes)
        for senseless in ("text", 3, None, [1, 2]):
            self.assertRaises(TypeError, queue.append, senseless)
            self.assertRaises(TypeError, queue.append_batch, [b"", senseless])
        self.assertEqual(queue.stats().appends, 5)

    def test_a_batch_is_appended_at_once(self):
        queue = self.open()
        spans = queue.append_batch(LINES[:50])
        self.assertEqual([queue.read(span.offset)[::3] for span in spans], [*zip((s.offset for s in spans), LINES)])
        self.fails(mfq.E_TOO_LARGE, "batch", queue.append_batch, [b"x" * 8 * PAGE] * 3)
        self.assertEqual(queue.offsets().reserved, spans[-1].end)

    def test_threads_append_while_another_one_tails(self):
        queue = self.open()
        seen = []

        def tail():
            seen.extend(record.data for record in islice(queue.reader(timeout=LONG), 4 * len(LINES)))

        def append(number):
            for line in LINES:
                queue.append(b"%d %s" % (number, line))

        threads = [threading.Thread(target=tail), *(threading.Thread(target=append, args=[n]) for n in range(4))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(4):
            own = [line[2:] for line in seen if line.startswith(b"%d " % number)]
            self.assertEqual(own, LINES)

    def test_a_loop_ends_at_the_end_or_in_a_timeout(self):
        queue = self.open()
        queue.append(b"one")
        self.assertEqual([record.data for record in queue.reader()], [b"one"])
        reader = queue.reader(timeout=0.01)
        self.assertEqual(next(reader).data, b"one")
        self.fails(mfq.E_TIMEOUT, "timeout_ms", next, reader)
        self.fails(mfq.E_END, "", reader.next)
        began = time.monotonic()
        self.fails(mfq.E_TIMEOUT, "", reader.next, 0.25)
        self.assertGreaterEqual(time.monotonic() - began, 0.25)
        queue.append(b"two")
        self.assertEqual(reader.next(None).data, b"two")
        reader.seek(0)
        self.assertEqual(reader.next().data, b"one")


class Memory(Case):
    def test_a_view_holds_its_file_until_the_last_slice_is_gone(self):
        queue = self.open()
        view = queue.view(queue.append(LINES[0] + b"#").offset)
        self.assertEqual(view.data, LINES[0] + b"#")
        self.assertTrue(view.data.readonly)
        queue.close()
        part = view.data[-1:]
        view.data.release()
        self.assertRaises(ValueError, bytes, view.data)
        self.assertTrue(self.is_mapped())
        self.assertEqual(part, b"#")
        part.release()
        self.assertFalse(self.is_mapped())

    def test_a_view_of_an_empty_record_holds_nothing(self):
        queue = self.open()
        view = queue.view(queue.append(b"").offset)
        queue.close()
        self.assertEqual(view.data, b"")
        self.assertFalse(self.is_mapped())

    def test_a_claim_is_committed_by_its_end(self):
        queue = self.open()
        with queue.claim(20) as claim:
            claim.data[:] = b"%20d" % claim.offset
            self.assertEqual(queue.stats().open_claims, 1)
        self.assertEqual(queue.read(claim.offset).data, b"%20d" % claim.offset)
        with queue.claim(40) as claim:
            claim.data[:5] = b"short"
            span = claim.commit(5)
        self.assertEqual(queue.read(span.offset).data, b"short")
        with queue.claim(0):
            pass
        self.assertEqual(len(list(queue.reader())), 3)

    def test_a_claim_keeps_its_queue_open(self):
        claim = mfq.Queue(self.path, file_size=PAGE).claim(8)
        claim.data[:] = b"complete"
        claim.commit()
        del claim
        self.assertEqual(mfq.Queue(self.path).read(0).data, b"complete")

    def test_a_claim_is_aborted_by_an_exception_by_abort_and_when_it_is_forgotten(self):
        queue = self.open()
        with self.assertRaises(KeyError), queue.claim(8):
            raise KeyError
        with queue.claim(8) as claim:
            claim.abort()
        queue.claim(8)
        self.assertEqual(queue.stats().open_claims, 0)
        self.assertEqual(list(queue.reader()), [])
        self.assertGreater(queue.offsets().committed, 0)

    def test_a_claim_that_goes_wrong_is_aborted_and_told_why(self):
        queue = self.open()
        with mock.patch.object(mfq, "bytearray", create=True, side_effect=MemoryError):
            self.assertRaises(MemoryError, queue.claim, 8)
        with self.assertRaises(mfq.MfqError), queue.claim(8) as claim:
            claim.data[:] = b"too long!"
        self.assertEqual(queue.stats().open_claims, 0)
        with self.assertRaises(KeyError), queue.claim(8):
            queue.close()
            raise KeyError

    def test_a_claim_takes_what_its_data_is_when_it_ends(self):
        queue = self.open()
        claim = queue.claim(40)
        claim.data[:] = b"short"
        self.assertEqual(queue.read(claim.commit().offset).data, b"short")
        claim = queue.claim(8)
        claim.data += b"long"
        self.fails(mfq.E_INVALID, "12", claim.commit)
        claim.data[:] = b"complete"
        self.assertEqual(queue.read(claim.commit().offset).data, b"complete")
        claim.data[:] = b"too late"
        self.assertEqual(queue.read(claim.offset).data, b"complete")

    def test_threads_that_end_one_claim_agree(self):
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        queue = self.open(file_size=256 * PAGE)

        def end(claim, size, spans):
            try:
                spans.append(claim.commit(size))
            except mfq.MfqError as error:
                failed.append(error.status)

        for _ in range(1000):
            claim, spans, failed = queue.claim(40), [], []
            claim.data[:] = b"%040d" % claim.offset
            threads = [threading.Thread(target=end, args=(claim, size, spans)) for size in (41, 40, 40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if spans:
                self.assertEqual(queue.read(claim.offset).data, b"%040d" % claim.offset)
            else:  # 41 had it while the others came
                claim.abort()
            self.assertEqual(len(spans) + len(failed), 3)
            self.assertTrue(len(spans) <= 1 and {mfq.E_CLOSED, mfq.E_INVALID}.issuperset(failed), failed)

    def test_a_commit_in_the_middle_of_another_one_has_nothing_to_commit(self):
        claim, memmove = self.open().claim(8), mfq.ctypes.memmove

        def interrupted(*arguments):
            mfq.ctypes.memmove = memmove
            self.fails(mfq.E_CLOSED, "claim", claim.commit)
            self.fails(mfq.E_CLOSED, "claim", claim.abort)
            memmove(*arguments)

        claim.data[:] = b"complete"
        with mock.patch.object(mfq.ctypes, "memmove", interrupted):
            at = claim.commit()
        self.assertEqual(claim._queue.read(at.offset).data, b"complete")

    def test_a_claim_outlives_its_queue_and_is_no_record_then(self):
        queue = self.open()
        claim, forgotten = queue.claim(8), queue.claim(8)
        queue.close()
        claim.data[:] = b"too late"
        self.fails(mfq.E_CLOSED, "queue", claim.commit)
        del forgotten
        self.assertFalse(self.is_mapped())
        self.assertEqual(list(self.open().reader()), [])


class Durability(Case):
    def test_flush_makes_durable_what_it_was_asked_for(self):
        queue = self.open()
        first, second = queue.append(b"one"), queue.append(b"two")
        queue.flush(first.end)
        self.assertEqual(queue.offsets().flushed, first.end)
        queue.wait(mfq.FLUSHED, first.end, timeout=0)
        self.fails(mfq.E_TIMEOUT, "", queue.wait, mfq.FLUSHED, second.end, timeout=0.01)
        with queue.claim(8):
            self.fails(mfq.E_TIMEOUT, "", queue.flush, timeout=0.15)
        queue.flush(timeout=LONG)
        self.assertEqual(queue.offsets().flushed, queue.offsets().reserved)

    def test_a_flush_of_all_does_not_wait_for_what_comes_later(self):
        queue = self.open()
        claim = queue.claim(8)
        threads, came_out = self.waiting((queue.flush,))
        later = queue.claim(8)
        time.sleep(0.15)  # until C is called anew
        claim.commit()
        self.come_out(threads)
        self.assertEqual(came_out, [None])
        later.abort()

    def test_what_is_appended_but_not_durable_tells_where_it_is(self):
        queue = self.open(flush_policy=mfq.FLUSH_EVERY_APPEND, append_timeout_ms=20)
        claim = queue.claim(8)
        one = self.fails(mfq.E_NOT_DURABLE, "appended", queue.append, b"one").spans
        more = self.fails(mfq.E_NOT_DURABLE, "appended", queue.append_batch, [b"two", b"three"]).spans
        claim.abort()
        spans = [(record.offset, record.end) for record in queue.reader()]
        self.assertEqual(spans, one + more)

    def test_every_append_that_returned_survives_a_kill(self):
        host = self.start(
            "queue = mfq.Queue(sys.argv[1], file_size=65536); claim = queue.claim(8)\n"
            "for line in sys.stdin.buffer: print(queue.append(line.rstrip(b'\\n')).offset, flush=True)"
        )
        returned = []
        for line in LINES:
            host.stdin.write(line + b"\n")
            host.stdin.flush()
            returned.append(int(host.stdout.readline()))
        host.kill()
        host.wait()
        queue = self.open()
        recovery = queue.recovery()
        self.assertEqual((recovery.ended, recovery.claims_passed_over), (mfq.ENDED_PROCESS_DEATH, 1))
        records = list(queue.reader())
        self.assertEqual([record.offset for record in records], returned)
        self.assertEqual([record.data for record in records], LINES)
        queue.close()
        self.assertEqual(self.open().recovery().ended, mfq.ENDED_CLEAN)

    def test_truncation_at_both_ends(self):
        queue = self.open(file_size=PAGE)
        spans = [queue.append(line) for line in LINES]
        held = queue.view(spans[0].offset)
        queue.truncate_after(spans[500].offset)
        queue.truncate_before(spans[400].offset)
        offsets = queue.offsets()
        self.assertTrue(0 < offsets.min <= spans[400].offset and offsets.committed == spans[500].offset)
        records = [record.data for record in queue.reader()]
        self.assertEqual(records, LINES[500 - len(records):500])
        self.assertGreaterEqual(len(records), 100)
        self.fails(mfq.E_NOT_FOUND, "", queue.read, spans[0].offset)
        self.assertEqual(held.data, LINES[0])


class Ends(Case):
    def test_close_brings_out_who_waits(self):
        queue = self.open()
        far = 1 << 60
        threads, came_out = self.waiting(
            (queue.reader().next, None), (queue.wait, mfq.FLUSHED, far), (queue.wait, mfq.COMMITTED, far, LONG)
        )
        queue.close()
        self.come_out(threads)
        self.assertEqual(came_out, 3 * [mfq.E_CLOSED])

    def test_closing_a_reader_brings_out_who_waits_in_it(self):
        queue = self.open()
        reader = queue.reader()
        threads, came_out = self.waiting((reader.next, None))
        closing = threading.Thread(target=reader.close, daemon=True)
        closing.start()
        self.come_out([closing, *threads])
        self.assertEqual(came_out, [mfq.E_CLOSED])
        queue.append(b"the queue is open")

    def test_a_queue_that_is_closed_says_so_for_ever(self):
        queue = self.open()
        at = queue.append(b"x")
        reader, claim = queue.reader(), queue.claim(1)
        queue.close()
        queue.close()
        with queue:
            pass
        for call, *arguments in (
            (queue.append, b"x"), (queue.append_batch, [b"x"]), (queue.claim, 1), (queue.view, 0), (queue.read, 0),
            (queue.reader,), (queue.reader, 0), (queue.flush,), (queue.wait, mfq.COMMITTED, 0), (queue.offsets,),
            (queue.truncate_after, at.end), (queue.truncate_before, 0), (queue.stats,), (queue.recovery,),
            (reader.next, LONG), (reader.seek, 0), (claim.commit,),
        ):
            self.fails(mfq.E_CLOSED, "queue", call, *arguments)
        reader.close()
        reader.close()
        self.fails(mfq.E_CLOSED, "reader", reader.next)
        self.fails(mfq.E_CLOSED, "reader", reader.seek, 0)

    def test_a_queue_that_is_forgotten_is_closed(self):
        queue = mfq.Queue(self.path, file_size=PAGE)
        reader = queue.reader()
        del queue
        self.fails(mfq.E_LOCKED, "", mfq.Queue, self.path)
        del reader
        mfq.Queue(self.path).close()

    def test_a_program_that_ends_closes_its_queue(self):
        host = self.start("queue = mfq.Queue(sys.argv[1], file_size=65536); queue.append(b'x')")
        self.assertEqual(host.wait(LONG), 0)
        self.assertEqual(self.open().recovery().ended, mfq.ENDED_CLEAN)

    def test_an_interrupt_ends_a_wait(self):
        host = self.start(
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
            "reader = mfq.Queue(sys.argv[1], file_size=65536).reader()\n"
            "try: print('waits', flush=True); reader.next(None)\n"
            "except KeyboardInterrupt: print('came out')"
        )
        self.assertEqual(host.stdout.readline(), b"waits\n")
        self.until_it_sleeps(host.pid, host.pid)
        host.send_signal(signal.SIGINT)
        self.assertEqual(host.wait(LONG), 0)
        self.assertEqual(host.stdout.read(), b"came out\n")

    def test_a_forked_child_is_told_so(self):
        queue = self.open()
        queue.append(b"the parent's")
        reader, other, claim = queue.reader(queue.offsets().committed), queue.reader(), queue.claim(8)
        threads, came_out = self.waiting((reader.next, None))
        end, other_end = os.pipe()
        self.addCleanup(os.close, end)
        self.addCleanup(os.close, other_end)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of a fork beside threads
            child = os.fork()
        if child == 0:
            try:
                signal.alarm(LONG)  # what hangs is ended
                os.read(end, 1)
                claim.data[:] = b"child's!"
                for call, *arguments in (
                    (queue.append, b"the child's"), (mfq.Queue, self.path), (reader.next, LONG), (reader.seek, 0),
                    (reader.close,), (other.__enter__().__exit__,), (claim.commit,), (claim.abort,), (queue.close,),
                ):
                    self.fails(mfq.E_FORKED, "", call, *arguments)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        claim.data[:] = b"parent's"
        claim.commit()
        self.come_out(threads)
        os.write(other_end, b".")
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual([record.data for record in came_out], [b"parent's"])
        self.assertEqual([record.data for record in queue.reader()], [b"the parent's", b"parent's"])


class BadInput(Case):
    def test_options_that_make_no_sense_touch_no_disk(self):
        for word, options in (
            ("file_size", {"file_size": 1}),
            ("file_size", {"file_size": PAGE + 1}),
            ("file_size", {"file_size": 2 << 30}),
            ("file_size", {"file_size": 2**64 - 1}),
            ("start_offset", {"start_offset": 1 << 63}),
            ("format", {"format": 2}),
            ("filler", {"filler": 2}),
            ("filler", {"filler": mfq.FILLER_ROCKETMQ}),
            ("mode", {"mode": 2}),
            ("pool_buffers", {"mode": mfq.STAGED, "pool_buffers": 1}),
            ("MFQ_STAGED", {"flags": mfq.OPEN_LOCK_POOL}),
            ("MFQ_STAGED", {"flags": mfq.OPEN_POOL_FAIL_FAST}),
            ("MFQ_OPEN_ADOPT", {"flags": mfq.OPEN_ADOPT}),
            ("MFQ_OPEN_SALVAGE", {"flags": mfq.OPEN_SALVAGE | mfq.OPEN_STRICT}),
            ("MFQ_OPEN_SALVAGE", {"flags": mfq.OPEN_SALVAGE | mfq.OPEN_READ_ONLY}),
            ("walk", {"walk": mfq.walk_rocketmq}),
            ("flush_policy", {"flush_policy": 4}),
            ("flush_interval_ms", {"flush_interval_ms": -1}),
            ("commit_interval_ms", {"commit_interval_ms": -1}),
            ("files_ahead", {"files_ahead": 2**32 - 1}),
            ("permissions", {"permissions": 0o4600}),
            ("permissions", {"permissions": 0o400}),
            ("flags", {"flags": 512}),
            ("flags", {"flags": 2**32 - 1}),
        ):
            with self.subTest(options):
                self.fails(mfq.E_INVALID, word, self.open, **options)
        for options in {"flags": -1}, {"flags": 1 << 32}, {"file_size": 1 << 64}, {"append_timeout_ms": 1 << 31}:
            self.assertRaises(OverflowError, self.open, **options)
        for options in {"file_size": "4096"}, {"file_size": 1.5}, {"flag": 1}, {"struct_size": 8}:
            self.assertRaises(TypeError, self.open, **options)
        self.assertFalse(self.path.exists())
        self.open(walk=0, walk_context=None).close()

    def test_paths_that_lead_nowhere(self):
        directory = self.path.parent
        (directory / "file").write_bytes(b"text")
        (directory / "link").symlink_to("queue")
        self.open().close()
        self.fails(mfq.E_INVALID, "path", mfq.Queue, "")
        self.fails(mfq.E_INVALID, "not a directory", mfq.Queue, directory / "file")
        self.fails(mfq.E_INVALID, "symbolic link", mfq.Queue, directory / "link")
        error = self.fails(mfq.E_NOT_FOUND, "no/such/parent", mfq.Queue, directory / "no/such/parent")
        self.assertEqual(error.errno, errno.ENOENT)
        for flags in mfq.OPEN_EXISTING, mfq.OPEN_READ_ONLY:
            self.fails(mfq.E_NOT_FOUND, "none", mfq.Queue, directory / "none", flags=flags)
        self.assertRaises(ValueError, mfq.Queue, f"{self.path}\0")
        self.assertRaises(TypeError, mfq.Queue, 3)
        self.assertEqual({path.name for path in directory.iterdir()}, {"file", "link", "queue"})

    def test_a_path_is_bytes(self):
        self.path = Path(os.fsdecode(os.fsencode(self.path) + b" \xff\xfe"))
        self.open().append(b"x")
        error = self.fails(mfq.E_LOCKED, "/queue ", mfq.Queue, os.fsencode(self.path))
        self.assertEqual(str(pickle.loads(pickle.dumps(error))), error.sentence)

    def test_a_queue_is_not_opened_as_what_it_is_not(self):
        self.open().close()
        self.fails(mfq.E_INVALID, str(self.path), self.open, file_size=PAGE)
        self.fails(mfq.E_INVALID, "format", self.open, format=mfq.RAW)
        self.path = self.path.with_name("raw")
        self.open(format=mfq.RAW).close()
        self.fails(mfq.E_INVALID, "filler", self.open, format=mfq.RAW, filler=mfq.FILLER_ROCKETMQ)

    def test_a_queue_that_another_process_has_open_is_locked(self):
        owner = self.start("queue = mfq.Queue(sys.argv[1], file_size=65536); print(flush=True); sys.stdin.read()")
        owner.stdout.readline()
        self.fails(mfq.E_LOCKED, str(self.path), self.open)
        self.fails(mfq.E_LOCKED, str(self.path), self.open, flags=mfq.OPEN_READ_ONLY)
        owner.kill()
        owner.wait()
        self.open()

    def test_damaged_and_strange_files_are_named(self):
        queue = self.open(file_size=PAGE)
        for line in LINES[:200]:
            queue.append(line)
        queue.close()
        second = self.path / f"{PAGE:020}"
        (self.path / "notes.txt").write_bytes(b"")
        self.fails(mfq.E_CORRUPT, "notes.txt", mfq.Queue, self.path)
        (self.path / "notes.txt").unlink()
        os.truncate(second, PAGE // 2)
        self.fails(mfq.E_CORRUPT, str(second), mfq.Queue, self.path)
        second.unlink()
        self.fails(mfq.E_CORRUPT, str(self.path), mfq.Queue, self.path)

    def test_records_that_do_not_fit(self):
        queue = self.open(file_size=PAGE)
        before = vars(queue.offsets())
        self.fails(mfq.E_TOO_LARGE, "", queue.append, bytes(PAGE - 15))
        self.fails(mfq.E_TOO_LARGE, "", queue.claim, PAGE)
        self.fails(mfq.E_TOO_LARGE, "", queue.claim, 2**64 - 1)
        self.fails(mfq.E_INVALID, "records", queue.append_batch, [])
        self.assertRaises(OverflowError, queue.claim, -1)
        self.assertEqual(vars(queue.offsets()), before)
        queue.append(bytes(PAGE - 16))
        self.path = self.path.with_name("raw")
        raw = self.open(format=mfq.RAW)
        self.fails(mfq.E_INVALID, "", raw.append, b"")
        self.fails(mfq.E_INVALID, "", raw.claim, 0)
        with raw.claim(1) as claim:
            self.fails(mfq.E_BUSY, "claim", raw.append, b"x")
            claim.data[:] = b"y"

    def test_places_that_hold_no_record(self):
        queue = self.open()
        at = queue.append(b"0123456789abcdef01234567")
        for read in queue.read, queue.view:
            self.fails(mfq.E_INVALID, "", read, at.offset + 1)
            self.fails(mfq.E_CORRUPT, "", read, at.offset + 16)
            self.fails(mfq.E_END, "", read, at.end)
            self.fails(mfq.E_END, "", read, 2**64 - 8)
            self.assertRaises(OverflowError, read, -8)
            self.assertRaises(OverflowError, read, 1 << 64)
            self.assertRaises(TypeError, read, "0")
        self.fails(mfq.E_INVALID, "", queue.reader, 1)
        self.fails(mfq.E_INVALID, "offset 1", queue.truncate_after, 1)
        self.fails(mfq.E_INVALID, "offset", queue.truncate_after, 2**64 - 1)
        self.fails(mfq.E_INVALID, "offset", queue.truncate_before, 2**64 - 1)
        self.fails(mfq.E_INVALID, "up_to", queue.flush, 1 << 63)
        self.fails(mfq.E_INVALID, "which is 2", queue.wait, 2, 0)
        for call in queue.truncate_after, queue.truncate_before, queue.flush, queue.reader:
            self.assertRaises(OverflowError, call, -1)
        self.assertRaises(OverflowError, queue.wait, 1 << 32, 0)
        for senseless in -1, float("nan"):
            self.assertRaises(ValueError, queue.flush, timeout=senseless)
        self.assertRaises(TypeError, queue.flush, timeout="1")
        self.assertEqual(queue.read(0).end, at.end)

    def test_a_claim_ends_once(self):
        queue = self.open()
        claim = queue.claim(40)
        self.fails(mfq.E_INVALID, "41", claim.commit, 41)
        self.fails(mfq.E_INVALID, "", claim.commit, 30)
        self.assertRaises(OverflowError, claim.commit, -1)
        claim.data[:] = b"c" * 40
        claim.commit()
        self.fails(mfq.E_CLOSED, "claim", claim.commit)
        self.fails(mfq.E_CLOSED, "claim", claim.abort)
        self.assertEqual([record.data for record in queue.reader()], [b"c" * 40])

    def test_a_reader_of_a_read_only_queue_may_not_write(self):
        self.open().close()
        queue = self.open(flags=mfq.OPEN_READ_ONLY)
        for call, *arguments in ((queue.append, b"x"), (queue.append_batch, [b"x"]), (queue.claim, 1), (queue.flush,),
                                 (queue.truncate_after, 0), (queue.truncate_before, 0)):
            self.fails(mfq.E_READ_ONLY, "", call, *arguments)


if __name__ == "__main__":
    unittest.main()
