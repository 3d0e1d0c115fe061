"""What many objects and large arrays cost beside their own size."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec

import pyarrow as pa


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is garbage meanwhile: with many objects that stay, looking for some takes seconds."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def give_back() -> None:
    """Give memory that was freed back to the system, which allocators put off."""
    pa.default_memory_pool().release_unused()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


class _WithoutPandas:
    """Finds no pandas."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: object = None
    ) -> ModuleSpec | None:
        if name == "pandas":
            raise ImportError("pandas is not wanted in this process")
        return None


def do_without_pandas() -> None:
    """For processes of ours: pandas cannot be imported in this one from now on.

    pyarrow imports it, if it can, with its first array, which takes half a second and 30 MiB.
    """
    sys.meta_path.insert(0, _WithoutPandas)


def be_slim() -> None:
    """For processes that only plan and make.

    pyarrow's own allocator keeps 40 MiB more of what was freed than the system's does. The checks
    take a quarter longer with the system's.
    """
    do_without_pandas()
    pa.set_memory_pool(pa.system_memory_pool())
