"""Shared by tests of the accounting: models without parameters, and costs; cached."""

from functools import cache

from flax import nnx

import nin_jax
from nin_jax.accounting.layers import layer_costs
from nin_jax.accounting.programs import abstract_model
from nin_jax.models.geometry import trace


def known(number):
    """Return a number that must not be None."""
    assert number is not None
    return number


def shapes_of(*args, **options):
    """Return `create_model` of the arguments with shapes in place of parameters."""
    return nnx.eval_shape(lambda: nin_jax.create_model(*args, **options))


@cache
def costs_of(variant, channels, classes, sides, logit_relu=True):
    """Return the costs of each layer by formula."""
    layers = trace(nin_jax.get_variant(variant), channels, classes, sides)
    return tuple(layer_costs(layers, logit_relu))


@cache
def model_of(variant, channels, classes, sides, logit_relu=True):
    """Return a network with shapes in place of parameters. Do not change it: it is cached."""
    variant = nin_jax.get_variant(variant)
    return abstract_model(variant, channels, classes, sides, "float32", logit_relu)


class Raises:
    """A compiled program on a back end without analyses."""

    def cost_analysis(self):
        raise NotImplementedError

    memory_analysis = cost_analysis
