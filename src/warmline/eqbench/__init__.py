"""EQ-Bench 3 and v2 as their harnesses do them: scenarios, replies, a judge's verdicts, scores.

What is asked, shown and computed is the protocol of a pinned revision and stays; who answers, who judges and what is printed may change.
"""
