"""Online rivals of LGDRL, one file each, composed of the same parts."""
