"""EQ-Bench 3, as its harness does it: scenarios, transcripts, judge, ratings."""
