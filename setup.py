"""The native twin of the log's hot loops: built where there is a compiler, left out elsewhere."""

import os
import sys
import sysconfig

from setuptools import Extension, setup

# One build serves every later Python; the buffers it reads are in that interface from 3.11 on.
FIRST_STABLE = (3, 11)
is_stable = sys.version_info >= FIRST_STABLE and not sysconfig.get_config_var("Py_GIL_DISABLED")

# Flags from the environment take the place of Python's own, optimization among them.
flags = os.environ.get("CFLAGS", "")
sources = ("codec", "crc32c", "tail", "tail_committing", "tail_queueing", "write_back")
headers = ("crc32c", "encoding", "tail", "tail_parts", "write_back")
codec = Extension(
    "raftwal.native._codec",
    [f"raftwal/native/{name}.c" for name in sources],
    depends=[f"raftwal/native/{name}.h" for name in headers],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if is_stable else [],
    extra_compile_args=["-O3"] if flags and "-O" not in flags else [],
    py_limited_api=is_stable,
    # For those who would rather have no package than a slower one: make wheels, and the tests.
    optional="RAFTWAL_REQUIRE_NATIVE" not in os.environ,
)

setup(
    ext_modules=[] if os.environ.get("RAFTWAL_PURE_PYTHON") else [codec],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if is_stable else {},
)
