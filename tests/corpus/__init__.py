"""Random sources of every format, mutated as tools, users and disks mutate them."""
