"""Density ratios on tables: this package against the other Python libraries, on the same data in one run."""
