"""Arrays at addresses, for kernels whose parameters live in a number of tensors that is not known when they compile.

The caller keeps the memory alive; nothing is checked.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

CACHE_LINE = 64  # bytes


def _pointer_to(dtype: Any) -> Any:
    @intrinsic
    def as_pointer(typingctx, address):
        pointer = types.CPointer(dtype)

        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return as_pointer


_float32_pointer, _int64_pointer = map(_pointer_to, (types.float32, types.int64))


@njit(inline="always")
def float32_at(address, size):
    """The ``size`` float32 numbers that begin at ``address`` (int64), as a contiguous array; a view."""
    return numba.carray(_float32_pointer(address), (size,))


@njit(inline="always")
def int64_at(address, size):
    """The ``size`` int64 numbers that begin at ``address``."""
    return numba.carray(_int64_pointer(address), (size,))


@intrinsic
def _pointer_like(typingctx, address, like):
    pointer = types.CPointer(like.dtype)

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64, like), codegen


@njit(inline="always")
def array_at(address, size, like):
    """The ``size`` numbers that begin at ``address``, of the same type as those of the array ``like``."""
    return numba.carray(_pointer_like(address, like), (size,))


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at ``address`` (int64) ahead of its use; any address is allowed."""

    def codegen(context, builder, signature, args):
        pointer_type, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [pointer_type], ir.FunctionType(ir.VoidType(), [pointer_type, integer, integer, integer])
        )
        pointer = builder.inttoptr(args[0], pointer_type)
        for_reading, keep_everywhere, data = integer(0), integer(3), integer(1)
        builder.call(function, [pointer, for_reading, keep_everywhere, data])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@njit(inline="always")
def prefetch_all(address, num_bytes):
    """Ask for all cache lines of ``num_bytes`` from ``address`` (int64) on."""
    for line in range(address, address + num_bytes, CACHE_LINE):
        prefetch(line)
