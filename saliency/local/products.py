"""The product that local perturbation consists of, as vector operations: six rows by sixteen columns at a time.

A compiler does not keep sums in registers over a loop when they lie in an array, and so reaches a fifth of what the
processor can. Here the twelve sums of eight numbers are vectors of LLVM's own, which stay in registers.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS, COLUMNS = 6, 16
"""Rows and columns of one product: twelve sums, two vectors of weights and one of a value fill sixteen registers."""
_LANES = 8
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_INDEX, _LANE = ir.IntType(64), ir.IntType(32)


def _add_products(typing, values, ins, shift, weights, at, depth, out, outs, move, first, count):  # pyright: ignore
    """`out[outs[r] + move :][:16] += Σ_k values[ins[r] + shift + k] · weights[at + 16 k :][:16]`, k < depth, for the
    six rows r from `first` on. Where fewer of `count` are left, the last one stands for those that are missing, and as
    all sums are read before one is written, is added once."""
    signature = types.void(
        values, ins, types.int64, weights, types.int64, types.int64, out, outs, types.int64, types.int64, types.int64
    )  # fmt: skip

    def generate(context, builder, _, given):  # pyright: ignore
        def data(number: int):
            return context.make_array(signature.args[number])(context, builder, given[number]).data

        def vector_at(pointer, offset):
            return builder.bitcast(builder.gep(pointer, [offset]), _VECTOR.as_pointer())

        last = builder.sub(given[10], _INDEX(1))
        rows, places = [], []
        for r in range(ROWS):
            row = builder.add(given[9], _INDEX(r))
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            start = builder.add(builder.load(builder.gep(data(1), [row])), given[2])
            to = builder.gep(data(6), [builder.add(builder.load(builder.gep(data(7), [row])), given[8])])
            rows.append(builder.gep(data(0), [start]))
            places.append([vector_at(to, _INDEX(lane)) for lane in range(0, COLUMNS, _LANES)])
        sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in row] for row in places]
        for place, total in _pairs(places, sums):
            builder.store(builder.load(place, align=4), total)
        panel = builder.gep(data(3), [given[4]])
        with cgutils.for_range(builder, given[5]) as loop:
            line = builder.gep(panel, [builder.mul(loop.index, _INDEX(COLUMNS))])
            factors = [builder.load(vector_at(line, _INDEX(lane)), align=4) for lane in range(0, COLUMNS, _LANES)]
            for row, totals in zip(rows, sums, strict=True):
                value = _in_all_lanes(builder, builder.load(builder.gep(row, [loop.index])))
                for factor, total in zip(factors, totals, strict=True):
                    product = builder.fmul(value, factor, flags=("fast",))
                    builder.store(builder.fadd(builder.load(total), product, flags=("fast",)), total)
        for place, total in _pairs(places, sums):
            builder.store(builder.load(total), place, align=4)
        return context.get_dummy_value()

    return signature, generate


add_products: Any = intrinsic(_add_products)


def _pairs(places, sums):  # pyright: ignore
    return [pair for row in zip(places, sums, strict=True) for pair in zip(*row, strict=True)]


def _in_all_lanes(builder, value):  # pyright: ignore
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, _LANE(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_LANE, _LANES), [0] * _LANES))
