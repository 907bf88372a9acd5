"""Engine and highway-env side by side: what "bit for bit" means; for `lgdrl bench sim --parity` and for the tests."""
