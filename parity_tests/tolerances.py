"""Every bound of the suite, each with its reason. They are never loosened.

Unless it says otherwise, a bound is on the maximum error: the largest absolute difference in an
array, divided by the largest absolute value that PyTorch has in that array. A mean would hide
one wrong pixel at a border among a million right ones.

eps is 2.2e-16 in float64, 1.2e-7 in float32 and 7.8e-3 in bfloat16.
"""

from typing import Literal

Precision = Literal["float32", "float64"]

# One activation is a sum of up to 9 * 384 = 3,456 products. Two orders of summation differ by
# about sqrt(3,456) = 60 roundings, and fifteen layers pass it on: a few hundred eps, times the
# ratio of a layer's typical to its largest value, which is below one.
FORWARD: dict[Precision, float] = {"float64": 1e-12, "float32": 1e-5}

# A weight's gradient is a sum over images and positions (2 * 112 * 112 = 25,088 products for
# nin15's first layer) and over paths through the layers above. In float32 it is held where both
# frameworks take the same decisions in every ReLU and pool: see test_gradients.
GRADIENT: dict[Precision, float] = {"float64": 1e-12, "float32": 1e-5}

# 20 optimiser steps. Each step sees gradients at parameters that already differ; the curvature
# of the loss multiplies a difference a few times a step at most. 1e-12 a step leaves room for
# a growth of 100 in all.
OPTIMIZER_STEPS = 1e-10

# optax computes a schedule in float32: a few roundings of 6e-8 each, on rates and on the cosine.
RATES = 1e-6

# torch.optim.Muon orthogonalises in bfloat16: it rounds the matrix, and three products in each of
# five iterations, by half an eps = 0.4 % of a value at most. Independent roundings give
# sqrt(16) * 0.4 % = 1.6 % of an update, and no larger share of the sum of 20 updates. This bound is
# on Frobenius norms, of the difference over the distance moved.
MUON_BFLOAT16 = 0.016

# bfloat16 rounds to 8 significant bits: half an eps is 0.4 % of one value, after each of up to
# 15 layers' product and again after its bias. Independent roundings would give
# sqrt(30) * 0.4 % = 2 %; the bound leaves a factor of 2 because roundings early in the network
# are shared by everything above.
BFLOAT16_LOGITS = 0.04

# Convolutions of a few hundred products each, one layer deep.
CONV = 1e-13

# Chance that any of n two-sample tests of equal distributions fails, when all are equal. The
# seeds are fixed, so a failure repeats; the level only says how often a new seed, or a new
# version of a random generator, would need a second look. Each test gets level / n (Bonferroni).
INIT_FALSE_ALARM = 0.01

# Sample moments: in standard errors of the estimate. 5 is passed by chance once in 1.7 million.
MOMENT_STANDARD_ERRORS = 5.0

# Losses and parameters of 50 steps on other devices or in other processes. Sums over devices in
# another order are the only difference, dropout and augmentation on, and the small network of the
# tests takes no ReLU or maximum the other way; measured: 5e-7 and 2e-15.
LAYOUT = {"float32": 1e-5, "float64": 1e-12}

# Test accuracy of shipped weights, on another machine than their card's. Where the two best logits
# nearly tie, sums in another order may choose the other class: 3 images of 10,000 at most.
SHIPPED_ACCURACY = 3e-4
