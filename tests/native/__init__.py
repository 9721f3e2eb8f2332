"""What tests/test_native.py builds and runs: two C programs around native.c, and bugs to plant."""
