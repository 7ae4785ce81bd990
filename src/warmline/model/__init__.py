"""Backbone, heads, losses, the reader, and saved artefacts. Knows nothing of data files.

How a base is run is `backbone.Backbone`'s business: another library is another class of it. What a head computes is in `heads.py` and
`losses.py`, for every task alike.
"""

REPLY_TOKENS = 512
"""Longest reply where nobody asks for another, and wherever base and tuned are compared: an instruct model's usual answer fits."""
