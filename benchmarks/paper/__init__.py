"""The experiments of the ADIW paper: label noise and class-prior shift, by every method, on the same data, seeds and budget."""
