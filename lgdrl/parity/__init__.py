"""Engine and highway-env side by side: what "bit for bit" means, shown by `lgdrl bench sim --parity` and by the tests."""
