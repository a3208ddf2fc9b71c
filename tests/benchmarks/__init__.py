"""How fast the clinic answers, beside two yardsticks measured in the same run: `make bench`."""
