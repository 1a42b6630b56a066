"""The command `sbmini`: arguments, streams and exit codes. What it does is done by the library."""
