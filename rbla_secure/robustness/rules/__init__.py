"""Robust rules on a matrix of n vectors of length d, one row per client. They know of no federation and no ranks.

| rule                    | stands against          | the result stays within                 | file           |
|-------------------------|-------------------------|-----------------------------------------|----------------|
| coordinate_median       | f < n/2                 | the honest values of each coordinate    | coordinatewise |
| trimmed_mean            | f < n/2, f told         | the honest values of each coordinate    | coordinatewise |
| krum, multi_krum        | n >= 2f + 3, f told     | distances between honest vectors        | krum           |
| geometric_median        | f < n/2                 | distances between honest vectors        | geometric      |
| centered_clipping       | length only             | 2 f/n * radius of the honest, each step | clipping       |
| norm_bound              | length only             | 2 f/n * bound of the honest             | clipping       |
| divide_and_conquer      | f < n/2 that pull together, f told | what is orthogonal to them   | spectral       |
| fltrust                 | any f, reference told   | the reference's length                  | directional    |
| nearest_neighbor_mixing | as the rule after it    | honest vectors grow alike               | mixing         |
| bucketing               | f of ceil(n/s) buckets  | honest vectors grow alike               | mixing         |

All take real matrices of shape (n, d), work through them in chunks of columns without copying the whole, and return
float64. Ties go to the lower index. What is not finite is refused. Values so large that their squares overflow count
as infinitely far away; they never turn a result into NaN.
"""
