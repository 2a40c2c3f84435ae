"""What tests of the accounting share: networks without numbers, and costs, each made once."""

from functools import cache

import nin_jax
from nin_jax.accounting.layers import layer_costs
from nin_jax.accounting.programs import abstract_model
from nin_jax.models.geometry import trace


def known(number):
    assert number is not None
    return number


@cache
def costs_of(variant, channels, classes, sides, logit_relu=True):
    """Each layer's costs on paper."""
    layers = trace(nin_jax.get_variant(variant), channels, classes, sides)
    return tuple(layer_costs(layers, logit_relu))


@cache
def model_of(variant, channels, classes, sides, logit_relu=True):
    """The network with shapes in place of parameters; shared, so no test may change it."""
    variant = nin_jax.get_variant(variant)
    return abstract_model(variant, channels, classes, sides, "float32", logit_relu)


class Raises:
    """A compiled program of which a back end tells nothing."""

    def cost_analysis(self):
        raise NotImplementedError

    memory_analysis = cost_analysis
