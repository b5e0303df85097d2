"""JDNet (ACM MM 2020): network, modules and operators.

Equations of the paper:

    Eq. 1       background = rainy - rain              network.py
    Eq. 2-4     pairwise self-attention                self_attention.py, ops/pairwise_attention.py
    Eq. 5-9     scale aggregation                      scale_aggregation.py
    Eq. 10-14   self-calibrated convolution            self_calibration.py

`equations.py` restates all of them without optimizations.
"""
