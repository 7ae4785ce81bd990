"""What each objective is worth: the same run with one loss or another switched off."""
