"""The public data sets, a file each."""
