"""Linear functions with a given transpose, for operations differentiated in both modes.

`jax.custom_vjp` has no forward mode. With `jax.custom_jvp`, JAX derives the reverse mode by
transposing the rule, and that transpose is slow. Here the rule calls `linear`, whose transpose is
given. `jax.custom_derivatives.linear_call` does the same, but not under `jax.vmap`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_linear = Primitive("linear")


def linear(
    function: Callable[..., jax.Array],
    transpose: Callable[..., jax.Array],
    constants: Sequence[jax.Array],
    x: jax.Array,
    out: jax.Array | jax.ShapeDtypeStruct | ShapedArray,
) -> jax.Array:
    """Return ``function(*constants, x)``, which is linear in x.

    Args:
        function: also differentiable in the constants, in both modes.
        transpose: ``transpose(*constants, y)`` is the transpose of the function of x, at y.
        constants: arrays.
        x: an array.
        out: has the shape and the dtype of the result.
    """
    options = {"function": function, "transpose": transpose, "shape": out.shape, "dtype": out.dtype}
    return _linear.bind(*constants, x, **options)


def _evaluate(*arrays: jax.Array, function: Callable[..., jax.Array], **_: Any) -> jax.Array:
    return function(*arrays)


def _aval(*_: Any, shape: Any, dtype: Any, **__: Any) -> Any:
    return ShapedArray(shape, dtype)


def _jvp(primals: Any, tangents: Any, **options: Any) -> tuple[Any, Any]:
    *constants, x = primals
    *of_constants, of_x = tangents
    terms = []
    if not all(isinstance(tangent, ad.Zero) for tangent in of_constants):
        dots = tuple(map(ad.instantiate_zeros, of_constants))
        function = options["function"]
        terms.append(jax.jvp(lambda *c: function(*c, x), tuple(constants), dots)[1])
    if not isinstance(of_x, ad.Zero):
        terms.append(_linear.bind(*constants, of_x, **options))
    return _linear.bind(*primals, **options), sum(terms[1:], start=terms[0])


def _transposed(y: Any, *arrays: Any, function: Any, transpose: Any, **_: Any) -> list[Any]:
    *constants, x = arrays
    if isinstance(y, ad.Zero):
        result = ad.Zero(x.aval)
    else:
        result = linear(transpose, function, constants, y, x.aval)
    return [*[None] * len(constants), result]


def _batched(
    arrays: Any, axes: Any, *, function: Any, transpose: Any, shape: Any, dtype: Any
) -> tuple[Any, int]:
    *of_constants, of_x = axes
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)

    def transposes(*arrays: jax.Array) -> jax.Array:
        x = jax.vmap(transpose, (*of_constants, 0), of_x or 0)(*arrays)
        return x.sum(0) if of_x is None else x  # examples that share an x add up

    *constants, x = arrays
    functions = jax.vmap(function, tuple(axes))
    out = ShapedArray((size, *shape), dtype)
    return linear(functions, transposes, constants, x, out), 0


_linear.def_impl(_evaluate)
_linear.def_abstract_eval(_aval)
mlir.register_lowering(_linear, mlir.lower_fun(_evaluate, multiple_results=False))
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transposed
batching.primitive_batchers[_linear] = _batched
