"""Every bound of the suite, with its reason. They are never loosened.

A bound is on the maximum error, unless stated otherwise: the largest absolute difference in an
array, divided by the largest absolute value of PyTorch's array. A mean would hide one wrong pixel
at a border among a million right ones.

eps is 2.2e-16 in float64, 1.2e-7 in float32 and 7.8e-3 in bfloat16.
"""

from typing import Literal

Precision = Literal["float32", "float64"]

# One activation is a sum of up to 9 * 384 = 3,456 products. Two orders of summation differ by
# about sqrt(3,456) = 60 roundings, and 12 to 27 layers propagate it: a few hundred eps, times the
# ratio of a layer's typical to its largest value, which is below 1.
FORWARD: dict[Precision, float] = {"float64": 1e-12, "float32": 1e-5}

# A weight's gradient is a sum over images and positions (2 * 112 * 112 = 25,088 products for
# nin15's first layer) and over paths through the layers above. In float32 the bound is for images
# for which both frameworks take the same decisions in every ReLU and pool: see test_ladder.
GRADIENT: dict[Precision, float] = {"float64": 1e-12, "float32": 1e-5}

# 20 optimizer steps. The parameters differ after the first step, and the curvature of the loss
# multiplies a difference by a small factor in each step. This is 1e-12, with a factor of 100 for
# that growth.
OPTIMIZER_STEPS = 1e-10

# optax computes a schedule in float32: a few roundings of 6e-8 each, of rates and of the cosine.
RATES = 1e-6

# torch.optim.Muon orthogonalizes in bfloat16: it rounds the matrix, and three products in each of
# five iterations, by at most half an eps = 0.4 % of a value. Independent roundings give
# sqrt(16) * 0.4 % = 1.6 % of an update, and no larger part of the sum of 20 updates. This bound is
# on Frobenius norms: the difference divided by the distance moved.
MUON_BFLOAT16 = 0.016

# bfloat16 rounds to 8 significant bits: half an eps is 0.4 % of one value, after each of up to
# 15 layers' product and again after its bias. Independent roundings would give
# sqrt(30) * 0.4 % = 2 %. The factor of 2 is for roundings in early layers, which affect all later
# ones.
BFLOAT16_LOGITS = 0.04

# Convolutions of a few hundred products each, one layer deep.
CONV = 1e-13

# A window's average is a sum of at most 25 numbers of one sign and a division, a pixel's gradient a
# sum of as many quotients: 25 roundings of half an eps in either framework, so 25 eps. The one
# window of 81 numbers stays within it because its roundings partly cancel: about sqrt(81) = 9.
AVERAGE: dict[Precision, float] = {"float64": 5.6e-15, "float32": 3e-6}

# A sum in float32, of values that bfloat16 has, is rounded to bfloat16 once: half an eps.
ROUNDED_TO_BFLOAT16 = 3.91e-3

# Probability that any of n two-sample tests fails although all distributions are equal. Each test
# has level / n (Bonferroni). The seeds are fixed, so a test that passes always passes, unless a
# random generator changes.
INIT_FALSE_ALARM = 0.01

# Sample moments, in standard errors of the estimate. By chance, 1 in 1.7 million exceeds 5.
MOMENT_STANDARD_ERRORS = 5.0

# Losses and parameters of up to 50 steps on other devices or in other processes, with dropout and
# augmentation. Only the order of sums over devices differs, and in the small network of the tests
# no ReLU or maximum changes; measured: 5e-7 and 2e-15.
LAYOUT = {"float32": 1e-5, "float64": 1e-12}

# Test accuracy of shipped weights on another machine than the card's. If the two largest logits are
# almost equal, another order of sums can change the class: at most 3 of 10,000 images.
SHIPPED_ACCURACY = 3e-4
