"""Robust rules on a matrix of n vectors of length d, one row per client. They know of no federation and no ranks.

| rule                   | stands against        | bounded by                              | file             |
|------------------------|-----------------------|-----------------------------------------|------------------|
| coordinate_median      | f < n/2               | range of the honest values              | coordinatewise   |
| trimmed_mean           | f < n/2, f told       | range of the honest values              | coordinatewise   |
| krum, multi_krum       | n >= 2f + 3, f told   | distances between honest vectors        | krum             |
| geometric_median       | f < n/2               | distances between honest vectors        | geometric        |
| centered_clipping      | radius told           | f/n * radius per iteration              | clipping         |
| norm_bound             | bound told            | f/n * bound                             | clipping         |
| divide_and_conquer     | f < n/2, f told       | what hides outside the top direction    | spectral         |
| fltrust                | any f, reference told | the reference's length                  | directional      |
| nearest_neighbor_mixing, bucketing | before another rule: makes honest vectors alike | | mixing |

All take real matrices of shape (n, d), work through them in chunks of columns without copying the whole, and return
float64. Ties go to the lower index. What is not finite is refused. Values so large that their squares overflow count
as infinitely far away; they never turn a result into NaN.
"""
