"""Prints a C program that compiles if mfq.py has the constants and structures of the header (the argument)."""

import ctypes
import re
import sys

import mfq

print("#include <mfq.h>\n#include <stddef.h>")


def assert_equal(c, value):
    print(f'_Static_assert({c} == {value}, "mfq.py has {value}");')


with open(sys.argv[1]) as header:
    defined = re.findall(r"^#define MFQ_(\w+) -?\d+$", header.read(), re.MULTILINE)
# What mfq.py has no use for.
unused = re.compile("LOG_|VERSION_|CREATION_BUCKETS")
for name in defined:
    if not unused.match(name):
        assert_equal(f"MFQ_{name}", getattr(mfq, name))
for kind in ("options", "offsets", "recovery", "stats", "span", "slice", "claim", "view"):
    structure, name = getattr(mfq, f"_{kind.capitalize()}"), f"mfq_{kind}_t"
    assert_equal(f"sizeof({name})", ctypes.sizeof(structure))
    for field, _ in structure._fields_:
        place = getattr(structure, field)
        assert_equal(f"offsetof({name}, {field})", place.offset)
        assert_equal(f"sizeof((({name} *)0)->{field})", place.size)
