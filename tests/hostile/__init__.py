"""Generated input that means harm, or is merely broken: each is served, or refused in one line."""
