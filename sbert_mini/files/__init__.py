"""Files and folders: atomic replacement, locks, paths as users write them, output folders."""
