"""Online rivals of LGDRL, one file each, written with the same four hooks."""
