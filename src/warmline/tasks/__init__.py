"""The heads: `TASKS` lists them, and each has one file that says all in which it differs from the others."""
